"""Simulates every schedule on up to 1,024 devices, with and without jitter; plans 10,000 layers.

    python -m benchmarks.scale [--stages 2 ... 1024] [--micro-batches 4 ... 4096] [--out FOLDER]

Devices are equal: a forward pass takes 1, a backward pass 2, half of it for gradients of weights, a
message 0.1, and messages travel while devices compute. Where a device holds two stages a pass of
one takes half as long. Schedules whose order is a list of passes are left out where a step has more
than a million of each kind, shown as a dash: their lists would take minutes and gigabytes. With
jitter the factors of passes are lognormal (sigma 0.2), and one pass in a
thousand takes ten times as long. Rates are shares of what the devices would reach if none ever
waited. What is simulated does not depend on the machine; seconds do.
"""

import argparse
import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from benchmarks.planner_growth import prepare, solve
from benchmarks.race import markdown
from hpc_lpm.campaign.figures.style import MUTED, figure_style, new_figure, to_svg
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.chunked import ChunkedSchedule
from hpc_lpm.schedules.clock import Jitter, PipelineClock
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.schedules.simulate import simulate

STAGES = tuple(2**power for power in range(1, 11))
MICRO_BATCHES = (4, 16, 64, 256, 1024, 4096)
FORWARD, BACKWARD, MESSAGE = 1.0, 2.0, 0.1
JITTERS = {"none": None, "jitter": Jitter(sigma=0.2, stall_share=0.001, stall_factor=10.0)}
LONGEST = (1024, 4096, 10)
"""Stages, micro-batches and steps of the simulation whose time and memory are shown."""
LAYERS, PLANNED_STAGES = 10_000, 1_024

_FEWEST_MICRO_BATCHES = 256
_MOST_PASSES = 2**20
"""Of each kind in a step, for schedules whose order is a list of passes."""


@dataclass(frozen=True)
class Contestant:
    """A schedule with a lead, and its colour in the figure."""

    name: str
    schedule: str
    lead: int
    colour: str


CONTESTANTS = (
    Contestant("fbp, lead 2", "fbp", 2, "#0b5fa5"),
    Contestant("fbp", "fbp", 1, "#63a3d8"),
    Contestant("1f1b, lead 2", "1f1b", 2, "#a4478f"),
    Contestant("1f1b", "1f1b", 1, "#d49ac7"),
    Contestant("gpipe", "gpipe", 1, "#2f8f5b"),
    Contestant("naive", "naive", 1, "#6b7580"),
    Contestant("interleaved-1f1b, 2 chunks", "interleaved-1f1b", 1, "#c2604a"),
    Contestant("zb-h1", "zb-h1", 1, "#e0a13c"),
    Contestant("zb-h2", "zb-h2", 1, "#8a6d1f"),
    Contestant("zb-v", "zb-v", 1, "#d4483b"),
    Contestant("dualpipe-v", "dualpipe-v", 1, "#3f9e9e"),
    Contestant("v-half", "v-half", 1, "#7a63c7"),
    Contestant("v-min", "v-min", 1, "#b39ddb"),
)


def clock_of(devices: int, chunks: int = 1) -> PipelineClock:
    """Return the clock of equal stages, `chunks` on each device."""
    stages = devices * chunks
    return PipelineClock(
        [FORWARD / chunks] * stages,
        [BACKWARD / chunks] * stages,
        [MESSAGE] * (stages - 1),
        overlap=True,
    )


def is_feasible(schedule: Schedule, devices: int, micro_batches: int) -> bool:
    """Tell if a schedule's list of passes, where it has one, is short enough."""
    has_list = isinstance(schedule, ChunkedSchedule)
    return not has_list or devices * schedule.chunks * micro_batches <= _MOST_PASSES


def steps_of(contestant: Contestant, stages: int, micro_batches: int, jitter: Jitter | None) -> int:
    """Return how many steps reach a steady state, in which enough micro-batches are counted."""
    enough = math.ceil(_FEWEST_MICRO_BATCHES / micro_batches)
    if SCHEDULES.named(contestant.schedule).flushes:
        # Without jitter all steps are alike.
        return max(4, 2 * enough) if jitter else 3
    return 4 + 2 * enough + 4 * math.ceil(contestant.lead * stages / micro_batches)


def rates(
    stages: Sequence[int] = STAGES, micro_batches: Sequence[int] = MICRO_BATCHES
) -> pd.DataFrame:
    """Return one row per schedule, devices, micro-batches and jitter that is feasible."""
    rows = []
    for contestant in CONTESTANTS:
        schedule = SCHEDULES.named(contestant.schedule)
        for k, m in product(stages, micro_batches):
            # One micro-batch at a time: its rate does not depend on M.
            simulated = min(micro_batches) if contestant.schedule == "naive" else m
            if not is_feasible(schedule, k, simulated):
                continue
            for label, jitter in JITTERS.items():
                result = simulate(
                    schedule,
                    clock_of(k, schedule.chunks),
                    simulated,
                    simulated * steps_of(contestant, k, simulated, jitter),
                    contestant.lead,
                    jitter=jitter,
                )
                share = (FORWARD + BACKWARD) / result.period_seconds
                held = max(result.peak_in_flight)
                rows.append((contestant.name, k, m, label, share, held))
    columns = ["contestant", "stages", "micro_batches", "jitter", "share", "most_in_flight"]
    return pd.DataFrame(rows, columns=columns)


def costs() -> pd.DataFrame:
    """Return the seconds and the peak of memory of the longest simulation, and of a large plan."""
    stages, micro_batches, steps = LONGEST
    fbp = SCHEDULES.named("fbp")
    rows = []
    for label, jitter in JITTERS.items():
        start = time.perf_counter()
        simulate(fbp, clock_of(stages), micro_batches, micro_batches * steps, jitter=jitter)
        what = f"fbp, K = {stages:,}, M = {micro_batches:,}, {steps} steps, jitter: {label}"
        rows.append((what, time.perf_counter() - start, _peak_gibibytes()))
    for overlap, label in ((True, "overlapped"), (False, "not overlapped")):
        problem = prepare(LAYERS, PLANNED_STAGES, overlap)
        start = time.perf_counter()
        solve(problem)
        what = f"plan of {LAYERS:,} layers in {PLANNED_STAGES:,} stages, transfers {label}"
        rows.append((what, time.perf_counter() - start, _peak_gibibytes()))
    return pd.DataFrame(rows, columns=["what", "seconds", "peak_gibibytes"])


def _peak_gibibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(rows: pd.DataFrame, spent: pd.DataFrame) -> str:
    """Return the tables in Markdown."""
    shown = []
    chosen = [k for k in (8, 64, 1024) if k in set(rows["stages"])]
    for (name, k), group in rows[rows["stages"].isin(chosen)].groupby(
        ["contestant", "stages"], sort=False
    ):
        for label, of_label in group.groupby("jitter", sort=False):
            by_m = of_label.set_index("micro_batches")["share"]
            cells = [
                f"{by_m[m]:.3f}" if m in by_m.index else "-"
                for m in sorted(set(rows["micro_batches"]))
            ]
            shown.append([str(name), f"{k:,}", str(label), *cells])
    micro_batches = [f"M = {m:,}" for m in sorted(set(rows["micro_batches"]))]
    text = markdown(["contestant", "K", "jitter", *micro_batches], shown)
    cost = [
        [str(row.what), f"{row.seconds:.1f}", f"{row.peak_gibibytes:.2f}"]
        for row in spent.itertuples()
    ]
    return text + "\n" + markdown(["what", "seconds", "peak so far, GiB"], cost)


def draw(rows: pd.DataFrame) -> str:
    """Draw the rates over K, a panel for each of four M; jitter is drawn dashed."""
    available = sorted(set(rows["micro_batches"]))
    chosen = [m for m in (4, 64, 1024, 4096) if m in available] or available[:4]
    with figure_style():
        figure = new_figure(2.9)
        panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
        for axes, m in zip(panels, chosen, strict=True):
            _panel(axes, rows[rows["micro_batches"] == m], m)
        panels[0].set_ylabel("share of the devices' rate")
        panels[0].plot([], [], "--", color=MUTED, linewidth=1.4, label="with jitter")
        panels[0].legend(fontsize=7, loc="lower right", bbox_to_anchor=(1.0, 0.13))
        return to_svg(figure, "Simulated rates of the schedules over the number of stages")


def _panel(axes: Axes, rows: pd.DataFrame, micro_batches: int) -> None:
    colours = {contestant.name: contestant.colour for contestant in CONTESTANTS}
    for (name, jitter), group in rows.groupby(["contestant", "jitter"], sort=False):
        steady = jitter == "none"
        axes.plot(
            group["stages"],
            group["share"],
            "-" if steady else "--",
            color=colours[str(name)],
            linewidth=1.4,
            label=str(name) if steady else None,
        )
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 1.05)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_title(f"M = {micro_batches:,}")
    axes.set_xlabel("K")
    axes.grid()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stages", type=int, nargs="+", default=list(STAGES))
    parser.add_argument("--micro-batches", type=int, nargs="+", default=list(MICRO_BATCHES))
    parser.add_argument("--out", type=Path, default=Path("results/reference/scale"))
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    spent = costs()
    rows = rates(arguments.stages, arguments.micro_batches)
    rows.to_csv(out / "rates.csv", index=False)
    spent.to_csv(out / "costs.csv", index=False)
    (out / "scale.svg").write_text(draw(rows))
    text = report(rows, spent)
    (out / "scale.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
