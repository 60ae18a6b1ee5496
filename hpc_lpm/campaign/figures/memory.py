"""Draws peak memory and bytes sent, rank by rank."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.figures.style import (
    INK,
    DrawnFigure,
    names_on_y_axis,
    new_figure,
    tint,
    to_svg,
)
from hpc_lpm.campaign.metrics import MEMORY, TRAFFIC
from hpc_lpm.campaign.runs import Run, entrants_of
from hpc_lpm.campaign.trials import file_name


def draw_memory(runs: list[Run], colours: Mapping[str, str]) -> DrawnFigure:
    """Draw one race: medians over runs of the peak memory and of the bytes sent per step.

    Args:
        runs: all of the race.
        colours: the colour of each contestant by its label.
    """
    data = _table(runs)
    entrants = entrants_of(runs)
    ranks = int(data["rank"].max()) + 1
    figure = new_figure(0.9 + len(entrants) * (0.22 + 0.17 * ranks))
    memory, sent = figure.subplots(1, 2, sharey=True)
    _draw_bars(memory, data, entrants, colours, MEMORY.name)
    _draw_bars(sent, data, entrants, colours, "bytes_sent_a_step")
    memory.set_title(f"peak {MEMORY.heading}")
    sent.set_title(f"sent per optimizer step, {TRAFFIC.unit}")
    names_on_y_axis(memory, [who.label for who in entrants])
    sent.spines["left"].set_visible(False)
    model, dataset = runs[0].entrant.race
    description = f"Peak memory and bytes sent by contestant and rank on {model}, {dataset}"
    return DrawnFigure(
        file_name("memory", model, dataset), to_svg(figure, description), data, description
    )


def _draw_bars(
    axes: Axes,
    data: pd.DataFrame,
    entrants: list[Entrant],
    colours: Mapping[str, str],
    column: str,
) -> None:
    largest = max(float(data[column].max()) * MEMORY.scale, 1e-9)
    for row, who in enumerate(entrants):
        chosen = data[data["contestant"] == who.label].sort_values("rank")
        height = 0.8 / max(len(chosen), 2)
        for position, value in enumerate(chosen[column]):
            middle = row + (position - (len(chosen) - 1) / 2) * height
            size = float(value) * MEMORY.scale
            shade = 0.85 - 0.35 * (position % 2)
            axes.barh(
                middle,
                size,
                height=0.88 * height,
                color=tint(colours[who.label], shade),
                linewidth=0,
            )
            digits = 0 if largest >= 100 else 2
            axes.annotate(
                f"{size:.{digits}f}" + (f" · rank {position}" if len(chosen) > 1 else ""),
                (size, middle),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
    axes.set_xlim(0, largest * 1.32)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _table(runs: list[Run]) -> pd.DataFrame:
    rows = [
        {
            "contestant": run.entrant.label,
            "rank": rank,
            MEMORY.name: memory,
            "bytes_sent_a_step": sent / max(len(run.result.step_seconds), 1),
        }
        for run in runs
        for rank, (memory, sent) in enumerate(
            zip(run.result.peak_memory_bytes, run.result.bytes_sent, strict=True)
        )
    ]
    table = pd.DataFrame(rows)
    return table.groupby(["contestant", "rank"], sort=False).median().reset_index()
