"""Draws the Pareto front of a profile's plans: bytes sent over period, memory as colour."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from hpc_lpm.campaign.figures.style import (
    GRID,
    INK,
    DrawnFigure,
    new_figure,
    to_svg,
)
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.pareto.front import ParetoFront

MILLISECONDS = 1e3
KIB = 1024
MIB = 2**20
_MEMORY_COLOURS = LinearSegmentedColormap.from_list(
    "memory", ["#7cc4a8", "#3d8fb8", "#2f4b93", "#3a1650"]
)
_WITHIN_COLOUR = "#fbe3c4"


def draw_pareto(model: CostModel, front: ParetoFront) -> DrawnFigure:
    """Draw the front; the chosen point and the periods within the tolerance are marked."""
    figure = new_figure(4.6)
    axes = figure.add_subplot()
    data = _table(front)
    largest_bytes = int(data["boundary_bytes"].max())
    unit, name = (MIB, "MiB") if largest_bytes >= MIB else (KIB, "KiB")
    periods = MILLISECONDS * data["period_seconds"]
    sent = data["boundary_bytes"] / unit
    least = float(periods.min())
    tolerance = model.options.tolerance
    dots = axes.scatter(
        periods,
        sent,
        c=data["memory_bytes"] / MIB,
        cmap=_MEMORY_COLOURS,
        s=26,
        edgecolor="white",
        linewidth=0.5,
        zorder=3,
    )
    # The tolerance may reach beyond the front, but must not stretch the axis.
    left, right = axes.get_xlim()
    axes.axvspan(
        least,
        (1 + tolerance) * least,
        color=_WITHIN_COLOUR,
        linewidth=0,
        zorder=-2,
        label=f"periods within the tolerance of {tolerance:g}",
    )
    axes.set_xlim(left, right)
    bar = figure.colorbar(dots, ax=axes, pad=0.02, aspect=30)
    bar.set_label("memory of the fullest stage, MiB")
    bar.outline.set_visible(False)
    _mark_chosen(axes, front, unit, name)
    figure.legend(loc="outside lower right", ncols=2)
    axes.set_xlabel("period, ms per micro-batch", loc="left")
    axes.set_ylabel(f"bytes over the boundaries, {name} a micro-batch")
    axes.set_ylim(bottom=0)
    axes.grid(color=GRID)
    axes.spines[["left", "bottom"]].set_visible(False)
    count = f"{len(front.points)} plans" if len(front.points) > 1 else "1 plan"
    subject = f"{model.profile.model} in {model.stages} stages: {count}"
    axes.set_title(f"{subject} that no other plan beats")
    description = (
        f"Pareto front of {subject} by period, bytes over the boundaries and memory of the fullest "
        "stage"
    )
    return DrawnFigure("pareto", to_svg(figure, description), data, description)


def _mark_chosen(axes: Axes, front: ParetoFront, unit: int, name: str) -> None:
    point = front.points[front.chosen]
    period, sent = MILLISECONDS * float(point.period), point.boundary_bytes / unit
    held = point.memory_bytes / MIB
    axes.scatter(
        period,
        sent,
        s=130,
        facecolor="none",
        edgecolor=INK,
        linewidth=1.6,
        zorder=4,
        label=f"chosen: {period:.2f} ms, {sent:.4g} {name} sent, {held:.4g} MiB held",
    )


def _table(front: ParetoFront) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "period_seconds": float(point.period),
                "boundary_bytes": point.boundary_bytes,
                "memory_bytes": point.memory_bytes,
                "chosen": number == front.chosen,
            }
            for number, point in enumerate(front.points)
        ]
    )
