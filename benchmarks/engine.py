"""Measures how near FBP comes to the machine's limit and to its plan, beside DeepSpeed.

    python -m benchmarks.engine [--repeats 6] [--only resnet110 gpt] [--out FOLDER]

The race has two ranks. *limit* is the sum of the rates of two independent sequential trainings, one
on each rank at the same time. *predicted* is the planner's prediction, for the cuts that the
pipelines use, from a profile taken within the same repeat. Rates are measured in steady state (all
steps but the first two and the last), with one thread per rank in fp32; every ratio is taken
between neighbours in time.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.race import Contestant, markdown, median, race, ratio, shown
from hpc_lpm.cluster.launchers import rank_command, rank_environment

RANKS = 2
MICRO_BATCHES = 4
RATE = "samples_per_second"
KINDS = ("load", "forward", "replay", "backward", "update", "send", "receive")


@dataclass(frozen=True)
class Race:
    """A model and its data, the batch size in samples and the steps of one training."""

    model: str
    dataset: str
    batch_size: int
    steps: int


_TEXT = f"text:{sysconfig.get_path('stdlib')}/asyncio,sequence=64"
RACES = {
    "resnet110": Race("resnet110", "digits,size=32", 64, 7),
    "vgg16": Race("vgg16", "digits,size=32", 64, 7),
    "gpt": Race("gpt,layers=4,width=128", _TEXT, 32, 40),
}


def run(name: str, folder: Path, repeats: int) -> pd.DataFrame:
    """Profile, plan and race one model, and return one row per training."""
    entered = RACES[name]
    plans = {weights: plan(name, entered, weights, folder) for weights in ("live", "replay")}

    def settings(strategy: str, weights: str) -> dict[str, object]:
        return {
            "model": entered.model,
            "dataset": entered.dataset,
            "strategy": strategy,
            "plan": str(plans[weights]),
            "batch_size": entered.batch_size,
            "micro_batches": MICRO_BATCHES,
            "steps": entered.steps,
            "weights": weights,
            # Small enough that no policy diverges within these few steps from the start.
            "optimizer": {"name": "momentum", "lr": 0.005},
        }

    contestants = [
        Contestant("limit", settings("limit", "live")),
        Contestant("fbp live", settings("fbp", "live")),
        Contestant("fbp live, lead 2", settings("fbp", "live") | {"lead": 2}),
        Contestant("predicted live", settings("fbp", "live"), "predicted"),
        Contestant("fbp replay", settings("fbp", "replay")),
        Contestant("predicted replay", settings("fbp", "replay"), "predicted"),
        Contestant("deepspeed-1f1b", settings("deepspeed-1f1b", "live")),
    ]
    return race(contestants, RANKS, repeats).assign(model=name)


def plan(name: str, entered: Race, weights: str, folder: Path) -> Path:
    """Profile and plan with the commands that a user types; return the path of the plan."""
    profile = folder / f"profile-{name}.json"
    made = folder / f"plan-{name}-{weights}.json"
    micro_batch = str(entered.batch_size // MICRO_BATCHES)
    profiling = ["profile", entered.model, "--dataset", entered.dataset]
    profiling += ["--micro-batch", micro_batch, "--out", str(profile)]
    planning = ["plan", str(profile), "--stages", str(RANKS), "--micro-batches", str(MICRO_BATCHES)]
    planning += ["--weights", weights, "--optimizer", "momentum", "--out", str(made)]
    environment = rank_environment(os.environ, threads=1)
    if not profile.exists():
        command = rank_command(profiling, RANKS, "mpirun")
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
    subprocess.run(
        rank_command(planning, 1, "mpirun"), env=environment, check=True, stdout=sys.stderr
    )
    return made


def report(rows: pd.DataFrame) -> str:
    """Return the tables in Markdown."""
    text = "Ratios of rates in steady state, median (95 % interval).\n\n"
    columns = ["model", "policy", "FBP samples/s", "FBP / limit", "FBP / predicted"]
    columns += ["predicted / limit", "FBP / DeepSpeed 1F1B", "n"]
    ratios = []
    for name, group in rows.groupby("model", sort=False):
        for policy in ("live", "live, lead 2", "replay"):
            fbp, predicted = f"fbp {policy}", f"predicted {policy.split(',')[0]}"
            rate = median(group, fbp, RATE)
            ratios.append(
                [
                    *(str(name), policy, shown(rate, 1)),
                    shown(ratio(group, fbp, "limit", RATE)),
                    shown(ratio(group, fbp, predicted, RATE)),
                    shown(ratio(group, predicted, "limit", RATE)),
                    shown(ratio(group, fbp, "deepspeed-1f1b", RATE)),
                    str(rate.n),
                ]
            )
    text += markdown(columns, ratios)
    text += "\nWhere the time of a rank goes, milliseconds a micro-batch (median).\n\n"
    return text + markdown(["model", "contestant", "rank", *KINDS, "rest"], where_it_goes(rows))


def where_it_goes(rows: pd.DataFrame) -> list[list[str]]:
    """Return the rows of the second table; *rest* is the time between instructions."""
    lines = []
    trained = rows[rows["milliseconds_by_kind"].notna()]
    for (name, label), group in trained.groupby(["model", "label"], sort=False):
        for rank in range(RANKS):
            kinds = pd.DataFrame([entry[rank] for entry in group["milliseconds_by_kind"]])
            medians = kinds.fillna(0.0).median()
            cells = [f"{medians.get(kind, 0.0):.2f}" for kind in (*KINDS, "rest")]
            lines.append([str(name), str(label), str(rank), *cells])
    return lines


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--only", nargs="*", choices=list(RACES), default=list(RACES))
    parser.add_argument("--out", type=Path, default=Path("results/reference/engine"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([run(name, arguments.out, arguments.repeats) for name in arguments.only])
    rows.drop(columns="milliseconds_by_kind").to_csv(arguments.out / "engine.csv", index=False)
    text = report(rows)
    (arguments.out / "engine.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
