"""Draws the changes of a comparison with their intervals as a forest plot, metric by metric."""

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hpc_lpm.campaign.comparison.change import Change
from hpc_lpm.campaign.comparison.tables import RaceChanges
from hpc_lpm.campaign.figures.style import (
    INK,
    MUTED,
    DrawnFigure,
    names_on_y_axis,
    new_figure,
    to_svg,
)
from hpc_lpm.campaign.metrics import TRAFFIC, Quantity
from hpc_lpm.campaign.trials import file_name

MOST_COLUMNS = 4
"""Most panels side by side; more would leave no room for the numbers below them."""

LEFT_OUT = frozenset({TRAFFIC})
"""Traffic is counted, not measured: it has no spread worth drawing and stands in the table."""


def draw_changes(race: RaceChanges, colours: Mapping[str, str]) -> DrawnFigure:
    """Draw one race; a mark is filled where the interval excludes "no change".

    Args:
        race: what changed in it.
        colours: the colour of each contestant by its label.
    """
    shown = [entry for entry in race.contestants if entry.change.value is not None]
    quantities = [
        quantity
        for quantity in race.quantities
        if quantity not in LEFT_OUT and any(entry.change.quantity == quantity for entry in shown)
    ]
    labels = race.labels()
    columns = min(len(quantities), MOST_COLUMNS)
    rows = math.ceil(len(quantities) / MOST_COLUMNS)
    figure = new_figure((1.1 + 0.36 * len(labels)) * max(rows, 1))
    for position, quantity in enumerate(quantities):
        axes = figure.add_subplot(rows, columns, position + 1)
        for entry in shown:
            if entry.change.quantity == quantity:
                label = entry.who.label
                _draw_change(axes, labels.index(label), entry.change, colours[label])
        _finish(axes, quantity, labels, with_names=position % MOST_COLUMNS == 0)
    description = f"Changes from A to B of {', '.join(labels)} on {race.title}"
    data = pd.DataFrame(
        [
            {
                "contestant": entry.who.label,
                "metric": entry.change.metric,
                "value": entry.change.value,
                "low": entry.change.low,
                "high": entry.change.high,
                "verdict": entry.change.verdict,
            }
            for entry in shown
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


def _finish(axes: Axes, quantity: Quantity, labels: list[str], *, with_names: bool) -> None:
    neutral = 0.0 if quantity.subtracted else 1.0
    axes.axvline(neutral, color=INK, linewidth=0.9, zorder=1)
    reach = max([abs(edge - neutral) for edge in axes.dataLim.intervalx] + [0.01])
    axes.set_xlim(neutral - 1.15 * reach, neutral + 1.15 * reach)
    names_on_y_axis(axes, labels if with_names else [""] * len(labels))
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    steps = MaxNLocator(2, steps=[1, 2, 5, 10]).tick_values(-reach, reach)
    axes.set_xticks([neutral + step for step in steps if abs(step) <= 1.1 * reach])
    axes.set_title(quantity.title)
    unit = ", points" if quantity.compared_as == "points" else ""
    axes.set_xlabel(f"B - A{unit}" if quantity.subtracted else "B / A", color=MUTED, loc="left")
