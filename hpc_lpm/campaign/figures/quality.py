"""Draws the quality of models, mostly test accuracy, over seconds of training and over epochs."""

import math
from collections.abc import Mapping
from itertools import accumulate

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpc_lpm.campaign.figures.style import (
    DrawnFigure,
    new_figure,
    short_label,
    to_svg,
)
from hpc_lpm.campaign.metrics import ACCURACY, Metric
from hpc_lpm.campaign.runs import Run, entrants_of
from hpc_lpm.campaign.trials import file_name
from hpc_lpm.engine.result import RunResult


def draw_quality(
    runs: list[Run], colours: Mapping[str, str], quality: Metric
) -> DrawnFigure | None:
    """Draw one race, each run a thin line and the median over runs a thick one.

    Args:
        runs: all of the race.
        colours: the colour of each contestant by its label.
        quality: the metric of evaluations that is drawn.
    """
    data = _quality_table(runs, quality.name)
    if data.empty:
        return None
    figure = new_figure(3.5)
    over_time, over_epochs = figure.subplots(1, 2, sharey=True)
    # Given by hand, since matplotlib leaves labels out that begin with an underscore.
    handles: dict[str, Line2D] = {}
    for who in entrants_of(runs):
        chosen = data[data["contestant"] == who.label]
        colour = colours[who.label]
        for axes, column in ((over_time, "training_seconds"), (over_epochs, "epoch")):
            handles[who.label] = _draw_contestant(axes, chosen, column, colour, quality)
    over_time.set_xlabel("seconds of training (evaluation not counted)", loc="left")
    over_epochs.set_xlabel("epoch", loc="left")
    over_epochs.xaxis.set_major_locator(MaxNLocator(integer=True))
    over_time.set_title("over time")
    over_epochs.set_title("over epochs")
    title = "test accuracy" if quality == ACCURACY else quality.title
    over_time.set_ylabel(f"{title}, %" if quality.unit == "%" else title)
    over_time.set_xlim(left=0)
    over_epochs.set_xlim(left=0)
    for axes in (over_time, over_epochs):
        axes.grid(axis="both")
        axes.spines["left"].set_visible(False)
    labels = [short_label(label) for label in handles]
    figure.legend(list(handles.values()), labels, loc="outside upper right", ncols=len(labels))
    model, dataset = runs[0].entrant.race
    description = f"{title.capitalize()} over time and over epochs on {model}, {dataset}"
    name = "accuracy" if quality == ACCURACY else quality.name
    return DrawnFigure(
        file_name(name, model, dataset), to_svg(figure, description), data, description
    )


def _draw_contestant(
    axes: Axes, chosen: pd.DataFrame, column: str, colour: str, quality: Metric
) -> Line2D:
    name, scale = quality.name, quality.scale
    for _, run in chosen.groupby("trial", sort=False):
        axes.plot(run[column], scale * run[name], color=colour, linewidth=0.8, alpha=0.35)
    middle = chosen.groupby("epoch")[["training_seconds", name]].median().reset_index()
    (line,) = axes.plot(
        middle[column],
        scale * middle[name],
        color=colour,
        linewidth=2.0,
        marker="o",
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.6,
    )
    return line


def _quality_table(runs: list[Run], name: str) -> pd.DataFrame:
    columns = ["contestant", "trial", "epoch", "training_seconds", name]
    rows = [
        # One process that plays several devices has not the seconds of these.
        (run.entrant.label, run.trial.name, epoch, math.nan if run.trial.played else seconds, value)
        for run in runs
        for epoch, seconds, value in _over_time(run.result, name)
    ]
    return pd.DataFrame(rows, columns=columns)


def _over_time(result: RunResult, name: str) -> list[tuple[float, float, float | None]]:
    """Return (epochs, seconds of training, value) at every evaluation of a run.

    Epochs are whole after an epoch, and shares of one inside.
    """
    seconds = [0.0, *accumulate(result.step_seconds)]
    evaluations = [each for each in result.evaluations if name in each.values]
    if not evaluations:  # of an older release: one accuracy after each of equally long epochs
        share = (len(seconds) - 1) / max(len(result.test_accuracy), 1)
        return [
            (float(epoch), seconds[round(share * epoch)], accuracy)
            for epoch, accuracy in enumerate(result.test_accuracy, start=1)
        ]
    steps_an_epoch = next((e.step / e.epoch for e in result.evaluations if e.after_epoch), 1.0)
    return [
        (
            float(each.epoch) if each.after_epoch else each.step / steps_an_epoch,
            seconds[each.step],
            each.values[name],
        )
        for each in evaluations
    ]
