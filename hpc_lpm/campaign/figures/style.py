"""One look for all figures: type, colours of phases and stages, and SVG that embeds well."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

WIDTH_INCHES = 8.6
LONGEST_LABEL = 40
TIMES = "\N{MULTIPLICATION SIGN}"
INK = "#1f2933"
MUTED = "#66717d"
GRID = "#e3e7eb"

PHASE_COLOURS = {
    "forward": "#9cc7e8",
    "backward": "#2a6ca8",
    "input gradient": "#5b95c9",
    "weight gradient": "#1d4b75",
    "replay": "#efc05a",
    "update": "#c2452d",
}
STAGE_TINTS = ("#eaf2fa", "#fdf1e2", "#e7f4f0", "#f5e9f2")


@dataclass(frozen=True)
class DrawnFigure:
    """A figure ready for the report: SVG text, the data it shows, and words about it."""

    name: str
    svg: str
    data: pd.DataFrame
    description: str


def tint(colour: str, strength: float) -> tuple[float, float, float]:
    """Return a colour mixed with white; unlike transparency, it hides the grid behind it."""
    red, green, blue = to_rgb(colour)
    return (
        1 - strength * (1 - red),
        1 - strength * (1 - green),
        1 - strength * (1 - blue),
    )


@contextmanager
def figure_style() -> Iterator[None]:
    """Set the look while figures are drawn and written."""
    settings: Any = {
        "font.family": "sans-serif",
        "font.size": 9,
        "text.parse_math": False,  # names may hold dollar signs
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": False,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "svg.fonttype": "none",
        "svg.hashsalt": "hpc-lpm",
    }
    with mpl.rc_context(settings):
        yield


def new_figure(height_inches: float) -> Figure:
    """Return an empty figure of the report's width."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def short_label(label: str) -> str:
    """Return the start and the end of a label that would leave no room for the figure."""
    if len(label) <= LONGEST_LABEL:
        return label
    half = LONGEST_LABEL // 2 - 1
    return f"{label[:half]}...{label[-half:]}"


def names_on_y_axis(axes: Axes, labels: list[str]) -> None:
    """Write the contestants along the y axis, the first at the top."""
    axes.set_yticks(range(len(labels)), list(map(short_label, labels)), color=INK)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)


def to_svg(figure: Figure, description: str) -> str:
    """Return the figure as SVG that scales with its place and says what it shows."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Without a size of its own it fills the width that the page gives it.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
