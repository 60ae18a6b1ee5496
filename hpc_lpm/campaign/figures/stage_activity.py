"""Draws what every stage did when, in a few steps of steady state, on one time scale for all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from hpc_lpm.campaign.figures.style import (
    INK,
    MUTED,
    PHASE_COLOURS,
    WIDTH_INCHES,
    DrawnFigure,
    new_figure,
    short_label,
    to_svg,
)
from hpc_lpm.campaign.runs import Run
from hpc_lpm.campaign.trials import file_name
from hpc_lpm.documents import parse_json
from hpc_lpm.files import read_text

COMPUTING = ("forward", "replay", "backward", "input gradient", "weight gradient", "update")
"""The phases that are drawn; at all other times a rank waits or communicates."""

_DARK = ("backward", "weight gradient")
"""Phases on whose colour white is read better."""

STEPS_IN_WINDOW = 3


@dataclass(frozen=True)
class Phase:
    """One phase of one rank; times are seconds on the clock of the trace."""

    name: str
    rank: int
    start: float
    stop: float
    micro_batch: int | None


def read_trace(path: Path) -> list[Phase]:
    """Return the phases of a trace by start time, or none if the file cannot be read."""
    try:
        document: Any = parse_json(read_text(path))
        events = [event for event in document["traceEvents"] if event.get("ph") == "X"]
        phases = [
            Phase(
                name=event["name"],
                rank=int(event["tid"]),
                start=event["ts"] * 1e-6,
                stop=(event["ts"] + event["dur"]) * 1e-6,
                micro_batch=event.get("args", {}).get("micro_batch"),
            )
            for event in events
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted(phases, key=lambda phase: (phase.start, phase.rank))


def steady_window(phases: list[Phase]) -> tuple[float, float]:
    """Return start and stop of about three optimizer steps in the middle of the trace.

    It reaches from one update of the first rank to the third after it; of a trace with too few
    updates, it is everything.
    """
    if not phases:
        return (0.0, 0.0)
    first = min(phase.rank for phase in phases)
    ends = [phase.stop for phase in phases if phase.name == "update" and phase.rank == first]
    if len(ends) <= STEPS_IN_WINDOW:
        return (min(phase.start for phase in phases), max(phase.stop for phase in phases))
    position = (len(ends) - 1 - STEPS_IN_WINDOW + 1) // 2
    return (ends[position], ends[position + STEPS_IN_WINDOW])


def clip(phases: list[Phase], start: float, stop: float) -> list[Phase]:
    """Return the computing phases within [start, stop], cut off at its ends."""
    return [
        Phase(
            phase.name,
            phase.rank,
            max(phase.start, start),
            min(phase.stop, stop),
            phase.micro_batch,
        )
        for phase in phases
        if phase.name in COMPUTING and phase.stop > start and phase.start < stop
    ]


def idle_share(clipped: list[Phase], rank: int, start: float, stop: float) -> float:
    """Return the share of [start, stop] in which no phase of `rank` runs; phases may overlap."""
    covered = 0.0
    reached = start
    for phase in sorted((p for p in clipped if p.rank == rank), key=lambda p: p.start):
        covered += max(0.0, phase.stop - max(phase.start, reached))
        reached = max(reached, phase.stop)
    return 1.0 - covered / (stop - start)


MILLISECONDS = 1e3
NARROWEST_NUMBERED_INCHES = 0.19


def draw_stage_activity(runs: list[Run]) -> DrawnFigure | None:
    """Draw the first traced run of every pipelined entrant of a race; None if there is no trace."""
    traces: dict[str, list[Phase]] = {}
    for run in runs:
        if run.trial.pipelined and run.entrant.label not in traces:
            phases = read_trace(run.folder / "trace.json")
            if phases:
                traces[run.entrant.label] = phases
    if not traces:
        return None
    windows = {label: steady_window(phases) for label, phases in traces.items()}
    span = max(stop - start for start, stop in windows.values())
    ranks = {label: 1 + max(phase.rank for phase in phases) for label, phases in traces.items()}
    figure = new_figure(0.8 + sum(0.5 + 0.34 * count for count in ranks.values()))
    panels = figure.subplots(
        len(traces), 1, sharex=True, squeeze=False, height_ratios=list(ranks.values())
    )[:, 0]
    rows: list[dict[str, object]] = []
    for axes, (label, phases) in zip(panels, traces.items(), strict=True):
        # Beyond the end of a trace, the window would show idle time where nothing was recorded.
        last_start = max(phase.stop for phase in phases) - span
        start = max(phases[0].start, min(windows[label][0], last_start))
        clipped = clip(phases, start, start + span)
        _draw_panel(axes, clipped, start, span, ranks[label])
        axes.set_title(short_label(label))
        rows.extend(_rows(label, clipped, start))
    panels[-1].set_xlabel("milliseconds", loc="left")
    used = {str(row["phase"]) for row in rows}
    handles = [
        Patch(color=colour, label=name) for name, colour in PHASE_COLOURS.items() if name in used
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    model, dataset = runs[0].entrant.race
    description = f"Timeline of the stages of {', '.join(traces)} on {model}, {dataset}"
    return DrawnFigure(
        file_name("timeline", model, dataset),
        to_svg(figure, description),
        pd.DataFrame(rows),
        description,
    )


def _draw_panel(axes: Axes, clipped: list[Phase], start: float, span: float, ranks: int) -> None:
    for phase in clipped:
        begin = MILLISECONDS * (phase.start - start)
        width = MILLISECONDS * (phase.stop - phase.start)
        axes.barh(
            phase.rank,
            width,
            left=begin,
            height=0.78,
            color=PHASE_COLOURS[phase.name],
            edgecolor="white",
            linewidth=0.5,
        )
        wide = width / (MILLISECONDS * span) * 0.85 * WIDTH_INCHES > NARROWEST_NUMBERED_INCHES
        if wide and phase.micro_batch is not None and phase.name != "update":
            axes.text(
                begin + width / 2,
                phase.rank,
                str(phase.micro_batch),
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if phase.name in _DARK else INK,
                clip_on=True,
            )
    for rank in range(ranks):
        share = idle_share(clipped, rank, start, start + span)
        axes.annotate(
            f"{100 * share:.0f} % idle",
            (1.0, rank),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=MUTED,
        )
    axes.set_yticks(range(ranks), [f"stage {rank}" for rank in range(ranks)], color=INK)
    axes.set_ylim(ranks - 0.5, -0.5)
    axes.set_xlim(0, MILLISECONDS * span)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _rows(label: str, clipped: list[Phase], start: float) -> list[dict[str, object]]:
    return [
        {
            "contestant": label,
            "stage": phase.rank,
            "phase": phase.name,
            "micro_batch": phase.micro_batch,
            "start_seconds": phase.start - start,
            "stop_seconds": phase.stop - start,
        }
        for phase in clipped
    ]
