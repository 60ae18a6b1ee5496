"""Main figure: throughput of every contestant, every run as a dot."""

import pandas as pd

from hpc_lpm.campaign.figures.style import (
    INK,
    MUTED,
    TIMES,
    DrawnFigure,
    names_on_y_axis,
    new_figure,
    strategy_colour,
    tint,
    to_svg,
)
from hpc_lpm.campaign.runs import Contestant, Run, contestants_of
from hpc_lpm.campaign.statistics import estimate
from hpc_lpm.campaign.trials import file_name

BASELINE = "sequential"


def draw_throughput(runs: list[Run], speedups: dict[Contestant, float]) -> DrawnFigure:
    """Draw the runs of one race; `speedups` are paired ratios over sequential training."""
    throughput: dict[Contestant, list[float]] = {}
    for run in runs:
        throughput.setdefault(run.contestant, []).append(run.result.samples_per_second)
    estimates = {who: estimate(values) for who, values in throughput.items()}
    order = sorted(contestants_of(runs), key=lambda who: -estimates[who].median)
    figure = new_figure(0.9 + 0.52 * len(order))
    axes = figure.add_subplot()
    furthest = max(value for values in throughput.values() for value in values)
    for row, who in enumerate(order):
        colour = strategy_colour(who.strategy)
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
        if who in speedups and who.strategy != BASELINE:
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
    axes.set_xlabel("training throughput, samples per second", color=MUTED, loc="left")
    model, dataset = order[0].race
    description = f"Throughput of {', '.join(who.label for who in order)} on {model}, {dataset}"
    data = pd.DataFrame(
        [
            {
                "contestant": run.contestant.label,
                "seed": run.trial.seed,
                "repeat": run.trial.repeat,
                "samples_per_second": run.result.samples_per_second,
            }
            for run in runs
        ]
    )
    return DrawnFigure(
        file_name("throughput", model, dataset), to_svg(figure, description), data, description
    )
