"""What every stage did when, in a few steps of steady state, on one time scale for all."""

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
    to_svg,
)
from hpc_lpm.campaign.runs import Run
from hpc_lpm.campaign.timeline import Phase, clip, idle_share, read_trace, steady_window
from hpc_lpm.campaign.trials import file_name

MILLISECONDS = 1e3
NARROWEST_NUMBERED_INCHES = 0.19


def draw_timeline(runs: list[Run]) -> DrawnFigure | None:
    """Draw the first traced run of every pipelined contestant of one race, None without a trace."""
    traces: dict[str, list[Phase]] = {}
    for run in runs:
        if run.trial.pipelined and run.contestant.label not in traces:
            phases = read_trace(run.folder / "trace.json")
            if phases:
                traces[run.contestant.label] = phases
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
        # Past the end of its trace, a window would show waiting where nothing was recorded.
        last_start = max(phase.stop for phase in phases) - span
        start = max(phases[0].start, min(windows[label][0], last_start))
        clipped = clip(phases, start, start + span)
        _draw_panel(axes, clipped, start, span, ranks[label])
        axes.set_title(label)
        rows.extend(_rows(label, clipped, start))
    panels[-1].set_xlabel("milliseconds", loc="left")
    used = {str(row["phase"]) for row in rows}
    handles = [
        Patch(color=colour, label=name) for name, colour in PHASE_COLOURS.items() if name in used
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    model, dataset = runs[0].contestant.race
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
                color="white" if phase.name == "backward" else INK,
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
