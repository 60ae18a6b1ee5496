"""Draws how contestants approach a campaign's target, over seconds and over optimizer steps."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.figures.style import (
    INK,
    DrawnFigure,
    new_figure,
    short_label,
    to_svg,
)
from hpc_lpm.campaign.reaching import RaceTarget
from hpc_lpm.campaign.runs import Run, entrants_of
from hpc_lpm.campaign.trials import file_name

MOST_POINTS = 200
"""The most points that are drawn of a curve."""


def draw_target(
    runs: list[Run],
    colours: Mapping[str, str],
    target: RaceTarget,
    medians: Mapping[Entrant, tuple[float, float]],
) -> DrawnFigure | None:
    """Draw one race: runs as thin lines, their median as a thick one, a ring where it gets there.

    A run that one process has played for several devices is drawn over steps alone.

    Args:
        runs: all of the race, those of other lengths too.
        colours: the colour of each contestant by its label.
        target: what they are to reach.
        medians: the median steps and seconds to the target.
    """
    data = _table(runs, target)
    if data.empty:
        return None
    figure = new_figure(3.7)
    over_seconds, over_steps = figure.subplots(1, 2, sharey=True)
    panels = ((over_seconds, "seconds"), (over_steps, "step"))
    handles: dict[str, Line2D] = {}
    scale = 100.0 if target.percent else 1.0
    for who in entrants_of(runs):
        chosen = data[data["contestant"] == who.label]
        if chosen.empty:
            continue
        for axes, column in panels:
            handles[who.label] = _draw_curves(
                axes, chosen, column, target.metric, scale, colours[who.label]
            )
    if target.value is not None:
        for at, (axes, _) in enumerate(panels):
            axes.axhline(scale * target.value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            _mark(axes, {who: each[1 - at] for who, each in medians.items()}, target, colours)
        over_steps.annotate(
            "target",
            (1, scale * target.value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            color=INK,
            fontsize=8.5,
        )
    over_seconds.set_title("over seconds")
    over_steps.set_title("over optimizer steps")
    over_seconds.set_xlabel("seconds of training (evaluation not counted)", loc="left")
    over_steps.set_xlabel("optimizer step", loc="left")
    over_seconds.set_ylabel(f"{target.title}, %" if target.percent else target.title)
    for axes, _ in panels:
        axes.set_xlim(left=0)
        axes.grid(axis="both")
        axes.spines["left"].set_visible(False)
    labels = [short_label(label) for label in handles]
    figure.legend(list(handles.values()), labels, loc="outside upper right", ncols=len(labels))
    model, dataset = runs[0].entrant.race
    description = f"{target.title.capitalize()} over seconds and over steps on {model}, {dataset}"
    return DrawnFigure(
        file_name("target", model, dataset), to_svg(figure, description), data, description
    )


def _draw_curves(
    axes: Axes, chosen: pd.DataFrame, column: str, name: str, scale: float, colour: str
) -> Line2D:
    for _, run in chosen.groupby("trial", sort=False):
        axes.plot(run[column], scale * run[name], color=colour, linewidth=0.7, alpha=0.35)
        if run["length"].iloc[0]:
            end = run.iloc[-1]
            axes.plot(end[column], scale * end[name], color=colour, marker=".", markersize=4)
    usual = chosen[chosen["length"] == 0]
    middle = usual.groupby("step")[["seconds", name]].median().reset_index()
    (line,) = axes.plot(middle[column], scale * middle[name], color=colour, linewidth=1.9)
    return line


def _mark(
    axes: Axes, at: Mapping[Entrant, float], target: RaceTarget, colours: Mapping[str, str]
) -> None:
    assert target.value is not None
    scale = 100.0 if target.percent else 1.0
    for who, where in at.items():
        if math.isfinite(where):
            axes.plot(
                where,
                scale * target.value,
                marker="o",
                markersize=6,
                markerfacecolor="white",
                markeredgecolor=colours[who.label],
                markeredgewidth=1.6,
                zorder=4,
            )


def _table(runs: list[Run], target: RaceTarget) -> pd.DataFrame:
    columns = ["contestant", "trial", "length", "step", "seconds", target.metric]
    rows: list[tuple[object, ...]] = []
    for run in runs:
        curve = target.curves.get(run.trial.name)
        if curve is None:
            continue
        last = len(curve.steps) - 1
        shown = np.unique(np.linspace(0, last, min(MOST_POINTS, last + 1)).round().astype(int))
        for at in shown:
            seconds = math.nan if run.trial.played else curve.seconds[at]
            described = (run.entrant.label, run.trial.name, run.trial.length or 0)
            rows.append((*described, curve.steps[at], seconds, curve.values[at]))
    return pd.DataFrame(rows, columns=columns)
