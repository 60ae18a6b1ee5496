"""Draws test accuracy over the seconds of training and over epochs."""

from collections.abc import Mapping
from itertools import pairwise

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
from hpc_lpm.campaign.run_log import read_run_log
from hpc_lpm.campaign.runs import Run, entrants_of
from hpc_lpm.campaign.trials import file_name


def draw_accuracy(runs: list[Run], colours: Mapping[str, str]) -> DrawnFigure | None:
    """Draw one race, each run a thin line and the median over runs a thick one.

    Args:
        runs: all of the race.
        colours: the colour of each contestant by its label.
    """
    data = _accuracy_table(runs)
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
            handles[who.label] = _draw_contestant(axes, chosen, column, colour)
    over_time.set_xlabel("seconds of training (evaluation not counted)", loc="left")
    over_epochs.set_xlabel("epoch", loc="left")
    over_epochs.xaxis.set_major_locator(MaxNLocator(integer=True))
    over_time.set_title("over time")
    over_epochs.set_title("over epochs")
    over_time.set_ylabel("test accuracy, %")
    over_time.set_xlim(left=0)
    over_epochs.set_xlim(left=0)
    for axes in (over_time, over_epochs):
        axes.grid(axis="both")
        axes.spines["left"].set_visible(False)
    labels = [short_label(label) for label in handles]
    figure.legend(list(handles.values()), labels, loc="outside upper right", ncols=len(labels))
    model, dataset = runs[0].entrant.race
    description = f"Test accuracy over time and over epochs on {model}, {dataset}"
    return DrawnFigure(
        file_name("accuracy", model, dataset), to_svg(figure, description), data, description
    )


def _draw_contestant(axes: Axes, chosen: pd.DataFrame, column: str, colour: str) -> Line2D:
    for _, run in chosen.groupby("trial", sort=False):
        axes.plot(run[column], 100 * run["test_accuracy"], color=colour, linewidth=0.8, alpha=0.35)
    middle = chosen.groupby("epoch")[["training_seconds", "test_accuracy"]].median().reset_index()
    (line,) = axes.plot(
        middle[column],
        100 * middle["test_accuracy"],
        color=colour,
        linewidth=2.0,
        marker="o",
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.6,
    )
    return line


def _accuracy_table(runs: list[Run]) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for run in runs:
        for epoch, (seconds, accuracy) in enumerate(_accuracy_over_time(run), start=1):
            rows.append(
                {
                    "contestant": run.entrant.label,
                    "trial": run.trial.name,
                    "epoch": epoch,
                    "training_seconds": seconds,
                    "test_accuracy": accuracy,
                }
            )
    columns = ["contestant", "trial", "epoch", "training_seconds", "test_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def _accuracy_over_time(run: Run) -> list[tuple[float, float]]:
    """Return (training seconds so far, accuracy) of every evaluation.

    How many steps lie before each is in `metrics.jsonl`; how long they took on the slowest rank
    is in the result.
    """
    steps = [entry[0] for entry in read_run_log(run.folder / "metrics.jsonl").accuracies]
    accuracies = run.result.test_accuracy
    if len(steps) != len(accuracies):  # without metrics, epochs are taken to be equally long
        share = len(run.result.step_seconds) / max(len(accuracies), 1)
        steps = [round(share * (number + 1)) for number in range(len(accuracies))]
    seconds: list[float] = []
    for start, stop in pairwise([0, *steps]):
        before = seconds[-1] if seconds else 0.0
        seconds.append(before + sum(run.result.step_seconds[start:stop]))
    return list(zip(seconds, accuracies, strict=True))
