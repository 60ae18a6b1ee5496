"""Forest plot of a comparison: every change with its interval, metric beside metric."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hpc_lpm.campaign.comparison.change import METRIC_TITLES, SPEEDUP, Change
from hpc_lpm.campaign.comparison.tables import RaceChanges
from hpc_lpm.campaign.figures.style import (
    INK,
    MUTED,
    DrawnFigure,
    names_on_y_axis,
    new_figure,
    strategy_colour,
    to_svg,
)
from hpc_lpm.campaign.trials import file_name

PANELS = ("samples_per_second", SPEEDUP, "test_accuracy", "peak_memory_bytes")
"""Traffic is left out: it is counted, not measured, and stands in the table."""


def draw_changes(race: RaceChanges) -> DrawnFigure:
    """Draw one race; a mark is filled where the interval leaves out no change."""
    shown = [row for row in race.contestants if row.entry.change.value is not None]
    metrics = [m for m in PANELS if any(row.entry.change.metric == m for row in shown)]
    labels = race.labels()
    figure = new_figure(1.1 + 0.36 * len(labels))
    for position, metric in enumerate(metrics):
        axes = figure.add_subplot(1, len(metrics), position + 1)
        for row in shown:
            if row.entry.change.metric == metric:
                colour = strategy_colour(row.entry.strategy)
                _draw_change(axes, labels.index(row.label), row.entry.change, colour)
        _finish(axes, metric, labels, with_names=position == 0)
    description = f"Changes from A to B of {', '.join(labels)} on {race.title}"
    data = pd.DataFrame(
        [
            {
                "contestant": row.label,
                "metric": row.entry.change.metric,
                "value": row.entry.change.value,
                "low": row.entry.change.low,
                "high": row.entry.change.high,
                "verdict": row.entry.change.verdict,
            }
            for row in shown
        ]
    )
    name = file_name("changes", race.title)
    return DrawnFigure(name, to_svg(figure, description), data, description)


def _draw_change(axes: Axes, row: int, change: Change, colour: str) -> None:
    assert change.value is not None
    if change.low is not None and change.high is not None:
        axes.plot([change.low, change.high], [row, row], color=colour, linewidth=1.6)
    decided = change.verdict != "inconclusive"
    face = colour if decided else "white"
    axes.scatter([change.value], [row], s=34, color=face, edgecolor=colour, linewidth=1.4, zorder=3)


def _finish(axes: Axes, metric: str, labels: list[str], *, with_names: bool) -> None:
    is_difference = metric == "test_accuracy"
    neutral = 0.0 if is_difference else 1.0
    axes.axvline(neutral, color=INK, linewidth=0.9, zorder=1)
    reach = max([abs(edge - neutral) for edge in axes.dataLim.intervalx] + [0.01])
    axes.set_xlim(neutral - 1.15 * reach, neutral + 1.15 * reach)
    names_on_y_axis(axes, labels if with_names else [""] * len(labels))
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    steps = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(-reach, reach)
    axes.set_xticks([neutral + step for step in steps if abs(step) <= 1.1 * reach])
    axes.set_title(METRIC_TITLES[metric])
    axes.set_xlabel("B - A, points" if is_difference else "B / A", color=MUTED, loc="left")
