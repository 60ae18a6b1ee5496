"""Main figure: throughput of every contestant, every run as a dot."""

from collections.abc import Mapping

import pandas as pd

from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.figures.style import (
    INK,
    MUTED,
    TIMES,
    DrawnFigure,
    names_on_y_axis,
    new_figure,
    tint,
    to_svg,
)
from hpc_lpm.campaign.metrics import THROUGHPUT
from hpc_lpm.campaign.runs import Run, entrants_of
from hpc_lpm.campaign.statistics import estimate
from hpc_lpm.campaign.trials import file_name


def draw_throughput(
    runs: list[Run], colours: Mapping[str, str], speedups: Mapping[Entrant, float]
) -> DrawnFigure:
    """Draw the runs of one race.

    Args:
        runs: all of the race.
        colours: the colour of each contestant by its label.
        speedups: paired ratios over the baseline, for all contestants that have one but itself.
    """
    throughput: dict[Entrant, list[float]] = {}
    for run in runs:
        throughput.setdefault(run.entrant, []).append(run.result.samples_per_second)
    estimates = {who: estimate(values) for who, values in throughput.items()}
    order = sorted(entrants_of(runs), key=lambda who: -estimates[who].median)
    figure = new_figure(0.9 + 0.52 * len(order))
    axes = figure.add_subplot()
    furthest = max(value for values in throughput.values() for value in values)
    for row, who in enumerate(order):
        colour = colours[who.label]
        values, middle = throughput[who], estimates[who]
        axes.barh(row, middle.median, height=0.56, color=tint(colour, 0.26), linewidth=0)
        axes.vlines(middle.median, row - 0.28, row + 0.28, color=colour, linewidth=2.2)
        axes.plot(middle.bounds(), [row, row], color=colour, linewidth=1.2, solid_capstyle="butt")
        offsets = [
            0.3 * (position / max(len(values) - 1, 1) - 0.5) for position in range(len(values))
        ]
        axes.scatter(
            values,
            [row + offset for offset in offsets],
            s=22,
            color=colour,
            edgecolor="white",
            linewidth=0.8,
            zorder=3,
        )
        words = f"{middle.median:.{0 if middle.median >= 1000 else 1}f}"
        if who in speedups:
            words += f" \u2009·\u2009 {speedups[who]:.2f}{TIMES}"
        axes.annotate(
            words,
            (max(middle.median, *values), row),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontweight="bold",
            fontsize=10,
        )
    names_on_y_axis(axes, [who.label for who in order])
    axes.set_xlim(0, furthest * 1.2)
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(f"training {THROUGHPUT.heading}", color=MUTED, loc="left")
    model, dataset = order[0].race
    description = f"Throughput of {', '.join(who.label for who in order)} on {model}, {dataset}"
    data = pd.DataFrame(
        [
            {
                "contestant": run.entrant.label,
                "seed": run.trial.seed,
                "repeat": run.trial.repeat,
                THROUGHPUT.name: run.result.samples_per_second,
            }
            for run in runs
        ]
    )
    return DrawnFigure(
        file_name("throughput", model, dataset), to_svg(figure, description), data, description
    )
