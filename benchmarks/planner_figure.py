"""Draws the figure of `benchmarks.planner`: how time grows, of `lpm` and of its rivals."""

import pandas as pd
from matplotlib.axes import Axes

from benchmarks.planner_contestants import OURS, RIVALS
from benchmarks.planner_growth import expected
from hpc_lpm.campaign.figures.style import MUTED, figure_style, new_figure, to_svg

COLOURS = {
    contestant.name: colour
    for contestant, colour in zip(
        (OURS, *RIVALS), ("#0b5fa5", "#d9822b", "#a4478f", "#6b7580"), strict=True
    )
}


def draw(growth: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return the figure as SVG, without the runs that were ended."""
    with figure_style():
        figure = new_figure(3.6)
        left, right = figure.subplots(1, 2, sharey=True)
        _growth(left, growth)
        _rivals(right, rows)
        left.set_ylabel("seconds")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.grid()
            axes.legend(loc="lower right")
        return to_svg(
            figure, "Seconds of the planner over L K log L, and of it and its rivals over L K"
        )


def _growth(axes: Axes, growth: pd.DataFrame) -> None:
    solved = growth.dropna(subset="seconds")
    work = [expected(row.layers, row.stages) for row in solved.itertuples()]
    solved = solved.assign(work=work).sort_values("work")
    for overlap, marker in ((True, "o"), (False, "s")):
        chosen = solved[solved["overlap"] == overlap]
        axes.plot(
            chosen["work"],
            chosen["seconds"],
            marker,
            color=COLOURS[OURS.name],
            fillstyle="full" if overlap else "none",
            markersize=5,
            label="overlapped transfers" if overlap else "not overlapped",
        )
    last = solved.iloc[-1]
    axes.plot(
        solved["work"],
        solved["work"] * last["seconds"] / last["work"],
        color=MUTED,
        linewidth=0.8,
        label="proportional",
    )
    axes.set_title("lpm, all four levels")
    axes.set_xlabel("L K log2 L")


def _rivals(axes: Axes, rows: pd.DataFrame) -> None:
    solved = rows[(rows["outcome"] == "solved") & (rows["case"] == "log-normal")]
    for name, colour in COLOURS.items():
        chosen = solved[solved["contestant"] == name]
        axes.plot(
            chosen["layers"] * chosen["stages"],
            chosen["seconds"],
            marker="o",
            markersize=5,
            color=colour,
            label=name,
        )
    axes.set_title("same layer times, slowest stage alone")
    axes.set_xlabel("L K")
