"""Checks by measurement whether the strategy that `hpc-lpm advise` puts first is the fastest.

    python -m benchmarks.advice [--only even-8 ...] [--first 5] [--repeats 7] [--out FOLDER]

For every case (`benchmarks.advice_cases`) the first strategies of the advice are trained on real
ranks, each in the way that the advice gives it, in turn on the same ranks. Measured rates are those
in steady state, times what a step is worth: advice orders by both. Its first choice counts as right
if it is within 5 % of the measured best. `--only` keeps the rows of other cases in the table.

Strategies that run on one rank, such as one process with several threads, are not raced: ranks are
started together. What is predicted of emulated devices is with the link that this machine measures
between as many ranks.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.advice_cases import CASES, AdviceCase
from benchmarks.race import Contestant, markdown, median, race, shown
from hpc_lpm.cluster.launchers import rank_command, rank_environment
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profile_file import LinkProfile, Profile

RIGHT_WITHIN = 0.05
LEARNING_RATE = 0.005
STEPS = 12
SLOW_STEP_SECONDS = 2.0
"""Cases whose first step is predicted to take longer are trained for half as many steps."""


def asked(case: AdviceCase, folder: Path) -> dict[str, Any]:
    """Return what `hpc-lpm advise --json` says about a case, profiled on as many ranks."""
    paths = _profiles(case, folder)
    command = [sys.executable, "-m", "hpc_lpm", "advise", case.model_of(paths[0])]
    command += ["--dataset", case.dataset]
    command += ["--devices", str(case.devices), "--batch-size", str(case.batch_size)]
    command += [word for path in paths for word in ("--profile", str(path))]
    if case.memory_limit is not None:
        command += ["--memory-limit", str(case.memory_limit)]
    done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _profiles(case: AdviceCase, folder: Path) -> list[Path]:
    """Profile a real model on all ranks, or write an emulated one with the link of such ranks."""
    if case.model is None:
        measured = folder / f"link-{case.devices}.json"
        if not measured.exists():
            _profile("mlp", "digits", 8, case.devices, measured)
        return case.write_profiles(folder, LinkProfile(**Profile.read(measured).link.model_dump()))
    paths = [folder / f"profile-{case.name}-{size}.json" for size in case.sizes]
    for path, size in zip(paths, case.sizes, strict=True):
        _profile(case.model, case.dataset, size, case.devices, path)
    return paths


def _profile(model: str, dataset: str, size: int, ranks: int, out: Path) -> None:
    arguments = ["profile", model, "--dataset", dataset, "--micro-batch", str(size)]
    command = rank_command([*arguments, "--out", str(out)], ranks, "mpirun")
    subprocess.run(command, check=True, env=rank_environment(os.environ, threads=1))


def contestants(
    case: AdviceCase, told: dict[str, Any], first: int, folder: Path
) -> list[Contestant]:
    """Return the first strategies of an advice that run on all ranks, each in its way."""
    found = []
    for each in told["strategies"]:
        strategy = strategy_named(each["strategy"])
        if not strategy.parallel:
            continue
        settings: dict[str, Any] = {
            "model": told["model"],
            "dataset": case.dataset,
            "strategy": each["strategy"],
            "batch_size": case.batch_size,
            "micro_batches": each["micro_batches"],
            "steps": STEPS if each["step_seconds"] < SLOW_STEP_SECONDS else STEPS // 2,
            "optimizer": {"name": told["optimizer"], "lr": LEARNING_RATE},
            **{
                name: value
                for name, value in each["options"].items()
                if name in strategy.options.model_fields
            },
        }
        if each["cuts"]:
            path = folder / f"plan-{case.name}-{each['strategy']}.json"
            profile = folder / f"profile-{case.name}-{each['micro_batch']}.json"
            options = strategy.plan_options(checked_settings(**settings))
            _write_plan(profile, each, options, path)
            settings["plan"] = str(path)
        found.append(Contestant(each["strategy"], settings))
    return found[:first]


def _write_plan(profile: Path, each: dict[str, Any], of_plan: dict[str, Any], path: Path) -> None:
    options = PlanOptions.checked(**{**of_plan, "micro_batches": each["micro_batches"]})
    cost = CostModel(Profile.read(profile), options.stages_on(each["stages"]), options)
    price_plan(cost, tuple(each["cuts"]), "advice", "").write(path)


def run(case: AdviceCase, folder: Path, first: int, repeats: int) -> pd.DataFrame:
    """Ask for advice on a case and race its first strategies; return a row for each of them."""
    told = asked(case, folder)
    (folder / f"advice-{case.name}.json").write_text(json.dumps(told, indent=2) + "\n")
    raced = contestants(case, told, first, folder)
    measured = race(raced, case.devices, repeats)
    by_name = {each["strategy"]: each for each in told["strategies"]}
    rows = []
    for place, contestant in enumerate(raced, start=1):
        each, rate = (
            by_name[contestant.label],
            median(measured, contestant.label, "samples_per_second"),
        )
        worth = each["step_worth"]["value"]
        rows.append(
            {
                "case": case.name,
                "devices": case.devices,
                "place": place,
                "strategy": contestant.label,
                "way": f"{each['stages']} x {each['replicas']}, M = {each['micro_batches']}",
                "predicted": each["samples_per_second"],
                "measured": rate.median,
                "interval": shown(rate, 1),
                "worth": worth,
                "memory_bytes": each["memory_bytes"],
                "n": rate.n,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(effective=table["measured"] * table["worth"].fillna(0.0))


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each case: its first choice, the measured best, and whether it is right."""
    found = []
    for name, group in rows.groupby("case", sort=False):
        ordered = group.sort_values("place")
        first, best = ordered.iloc[0], ordered.loc[ordered["effective"].idxmax()]
        share = first["effective"] / best["effective"]
        found.append(
            {
                "case": name,
                "first": first["strategy"],
                "best": best["strategy"],
                "share": share,
                "right": bool(share >= 1 - RIGHT_WITHIN),
            }
        )
    return pd.DataFrame(found)


def report(rows: pd.DataFrame) -> str:
    """Return the tables in Markdown."""
    verdicts = judged(rows)
    lines = [
        [str(one["case"]), one["first"], one["best"], f"{one['share']:.3f}", _word(one["right"])]
        for one in verdicts.to_dict("records")
    ]
    text = (
        f"The first choice is within {RIGHT_WITHIN:.0%} of the measured best in "
        f"{int(verdicts['right'].sum())} of {len(verdicts)} cases.\n\n"
    )
    text += markdown(["case", "first choice", "measured best", "first / best", "right"], lines)
    details = [
        [
            *(str(one["case"]), one["strategy"], one["way"], f"{one['predicted']:.1f}"),
            *(one["interval"], "unknown" if pd.isna(one["worth"]) else f"{one['worth']:.2f}"),
            *(f"{one['memory_bytes'] / 2**20:.1f}", str(one["n"])),
        ]
        for one in rows.to_dict("records")
    ]
    columns = ["case", "strategy", "stages x replicas", "predicted, samples/s"]
    columns += ["measured, samples/s", "worth of a step", "memory, MiB", "n"]
    return f"{text}\n{markdown(columns, details)}"


def _word(right: bool) -> str:
    return "yes" if right else "no"


def main() -> None:
    """Run from the command line."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--first", type=int, default=5, help="strategies that are raced")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/reference/advice"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = arguments.out / "advice.csv"
    for case in CASES:
        if case.name not in arguments.only:
            continue
        rows = run(case, arguments.out, arguments.first, arguments.repeats)
        if table.exists():
            before = pd.read_csv(table)
            rows = pd.concat([before[before["case"] != case.name], rows])
        rows.to_csv(table, index=False)
    text = report(pd.read_csv(table))
    (arguments.out / "advice.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
