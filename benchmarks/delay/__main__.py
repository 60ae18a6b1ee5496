"""What depth costs per step, and which corrections win it back.

    python -m benchmarks.delay --part short [--out FOLDER]
    python -m benchmarks.delay --part rates --part depths --part targets [--out FOLDER]
    python -m benchmarks.delay --part targets --family gpt-muon [--out FOLDER]
    python -m benchmarks.delay --part emulated [--out FOLDER]

Every training runs in one process of one thread, two at a time, and ends in the bits of the same
training on as many ranks as it has stages. Outcomes are kept as they come (`outcomes.jsonl`), so
that a part which was stopped goes on where it was; tables and figures show all that is there.
"""

import argparse
import math
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.delay.drawing import advantage_map, outcomes_over_stages, ratios_over_lag
from benchmarks.delay.emulated_steps import (
    CONTESTANTS,
    emulated_steps,
    equal_passes,
    planned_passes,
)
from benchmarks.delay.families import FAMILIES
from benchmarks.delay.methods import method_of, named
from benchmarks.delay.parts import PARTS
from benchmarks.delay.runs import Outcomes
from benchmarks.delay.tables import outcomes_table, ratios, worth_rows
from benchmarks.race import markdown, median, shown
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.profiling.job import profile_in_job

EMULATED, PLANNED = "emulated", "as planned"
_SOURCE = "python -m benchmarks.delay"
_OF_THE_MAP = ("gpt-muon", "gpt8-muon")
"""The trainings from which the map of advantages knows the steps at each lag."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", action="append", choices=[*PARTS, EMULATED], default=[])
    parser.add_argument("--family", action="append", choices=[*FAMILIES], help="by default all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/reference/delay"))
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    outcomes = Outcomes(out / "outcomes.jsonl")
    families = arguments.family or FAMILIES
    with tempfile.TemporaryDirectory() as plans:
        for part in arguments.part:
            if part == EMULATED:
                _emulate(out, Path(plans), arguments.repeats)
            else:
                runs = (run for run in PARTS[part]() if run.family in families)
                outcomes.add(runs, Path(plans))
    rows = outcomes.table(run for part in PARTS.values() for run in part())
    if not rows.empty:
        _report(rows, out)


def _report(rows: pd.DataFrame, out: Path) -> None:
    rows.to_csv(out / "outcomes.csv", index=False)
    worth_rows(rows, _SOURCE).to_csv(out / "worth.csv", index=False)
    text = outcomes_table(rows)
    (out / "outcomes.svg").write_text(outcomes_over_stages(rows, 4))
    (out / "steps.svg").write_text(ratios_over_lag(rows))
    emulated = out / "emulated.csv"
    if emulated.exists():
        text += "\n" + _time_to_target(rows, pd.read_csv(emulated))
    auto = {
        (key[1] - 1) / key[2]: ratio.mean
        for key, ratio in ratios(rows)
        if key[0] in _OF_THE_MAP and named(key[3]) == "recipe auto" and math.isfinite(ratio.mean)
    }
    if auto:
        (out / "advantage.svg").write_text(advantage_map(auto, "gpt with Muon, recipe auto"))
    (out / "delay.md").write_text(text)
    print(text)


def _emulate(out: Path, folder: Path, repeats: int) -> None:
    """Race on 8 devices that take the times of the gpt's plan, and on 8 equal ones."""
    stages, micro_batches = 8, 4
    family = FAMILIES["gpt-adamw"]
    data = load_dataset(family.dataset)
    model = create_model(family.model, data.shape)
    profile = profile_in_job(model, data, family.batch_size // micro_batches)
    profile.write(out / "profile-gpt.json")
    plan = make_plan(profile, "", stages, options=PlanOptions(micro_batches=micro_batches))
    message = max(profile.layers[cut - 1].output_bytes for cut in plan.cuts[1:-1])
    kinds = {PLANNED: planned_passes(profile, plan), "equal": equal_passes(stages)}
    rows = [
        emulated_steps(passes, message, micro_batches, repeats, folder).assign(devices=kind)
        for kind, passes in kinds.items()
    ]
    pd.concat(rows).drop(columns="milliseconds_by_kind").to_csv(out / "emulated.csv", index=False)


def _time_to_target(rows: pd.DataFrame, emulated: pd.DataFrame) -> str:
    """Return the table of times to one device's outcome on 8 devices, in units of a step's work."""
    own, *rivals = CONTESTANTS
    lines = []
    for kind, raced in emulated.groupby("devices", sort=False):
        step = {name: median(raced, name, "step_units") for name in CONTESTANTS}
        rival = step[rivals[0]].median
        for name in rivals:
            cells = [str(kind), name, shown(step[name]), "1", f"{step[name].median:.2f}"]
            lines.append([*cells, f"{rival / step[name].median:.2f}"])
        for key, ratio in ratios(rows):
            if key[1:3] == (8, 4) and key[0].startswith("gpt-") and math.isfinite(ratio.mean):
                took = ratio.mean * step[own].median
                # Rivals that do not flush either run the same order.
                who = f"{method_of(key[3])['strategy']}, {key[0]}"
                who += f", {named(key[3])}" if who.startswith(own) else ""
                cells = [str(kind), who, shown(step[own])]
                lines.append([*cells, str(ratio), f"{took:.2f}", f"{rival / took:.2f}"])
    columns = ["devices", "contestant", "step, M (F + B + W)", "steps over one device's"]
    slowest = emulated[emulated["devices"] == PLANNED]["slowest_stage_over_mean"].iloc[0]
    text = (
        f"On 8 emulated devices, M = 4. Devices of the kind *{PLANNED}* take the times of the "
        "stages of gpt's best plan, whose slowest stage takes "
        f"{slowest:.2f} times the mean; *equal* ones all take the mean:\n\n"
    )
    return text + markdown([*columns, "time to target", f"{rivals[0]}'s time over it"], lines)


if __name__ == "__main__":
    main()
