"""The figures of the delay benchmark."""

import math
from collections.abc import Iterable
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from benchmarks.delay.families import FAMILIES
from benchmarks.delay.methods import first_stage_lag, named
from benchmarks.delay.ratios import final_outcome
from benchmarks.delay.tables import baseline, contestants, ratios
from hpc_lpm.campaign.figures.style import MUTED, figure_style, new_figure, to_svg

_COLOURS = {"recipe none": "#b5502d", "recipe auto": "#0b5fa5"}
_OTHER_COLOURS = ("#6b7580", "#2f8f5b", "#8a5bb5", "#c2912b")
_MARKERS = "osD^vPX"


def _colours(corrections: Iterable[str]) -> dict[str, str]:
    """Return a colour for each text of corrections."""
    others = (text for text in dict.fromkeys(corrections) if text not in _COLOURS)
    return _COLOURS | dict(zip(others, cycle(_OTHER_COLOURS), strict=False))


def outcomes_over_stages(rows: pd.DataFrame, micro_batches: int) -> str:
    """Draw outcomes at one device's number of steps over K, a panel for each training."""
    families = [
        name
        for name in dict.fromkeys(rows["family"])
        if any(key[0] == name and key[2] == micro_batches for key, _ in contestants(rows))
    ]
    with figure_style():
        rows_of_panels = math.ceil(len(families) / 3)
        figure = new_figure(2.6 * rows_of_panels)
        panels = list(figure.subplots(rows_of_panels, 3, squeeze=False).flat)
        for axes, family in zip(panels, families, strict=False):
            _outcomes(axes, rows[rows["family"] == family], family, micro_batches)
        for axes in panels[len(families) :]:
            axes.set_axis_off()
        return to_svg(
            figure, f"Outcomes at one device's steps over the stages, M = {micro_batches}"
        )


def _outcomes(axes: Axes, rows: pd.DataFrame, family: str, micro_batches: int) -> None:
    one = final_outcome(baseline(rows, family)).median
    axes.axhline(one, color=MUTED, linewidth=0.8, label="one device")
    curves: dict[str, list[tuple[int, float]]] = {}
    for (_, stages, found, corrections), group in contestants(rows):
        if found == micro_batches:
            point = stages, final_outcome(group).median
            curves.setdefault(named(corrections), [(1, one)]).append(point)
    colours = _colours(curves)
    for (label, points), marker in zip(curves.items(), cycle(_MARKERS), strict=False):
        stages, outcomes = zip(*sorted(points), strict=True)
        axes.plot(stages, outcomes, marker=marker, markersize=4, color=colours[label], label=label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(family)
    axes.set_xlabel("K")
    axes.set_ylabel(f"test {FAMILIES[family].metric}")
    axes.legend()


def ratios_over_lag(rows: pd.DataFrame) -> str:
    """Draw the steps to one device's outcome over the first stage's mean lag."""
    with figure_style():
        figure = new_figure(3.2)
        axes = figure.subplots()
        points: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for (family, stages, micro_batches, corrections), ratio in ratios(rows):
            if math.isfinite(ratio.mean):
                lag = first_stage_lag(corrections, stages, micro_batches)
                points.setdefault((family, named(corrections)), []).append((lag, ratio.mean))
        colours = _colours(label for _, label in points)
        trainings = dict.fromkeys(family for family, _ in sorted(points))
        markers = dict(zip(trainings, cycle(_MARKERS), strict=False))
        for (family, label), found in sorted(points.items()):
            lags, values = zip(*sorted(found), strict=True)
            style = {"marker": markers[family], "color": colours[label], "markersize": 4}
            axes.plot(lags, values, label=f"{family}, {label}", **style)
        axes.axhline(1.0, color=MUTED, linewidth=0.8)
        axes.set_xlabel("mean lag of the first stage, updates")
        axes.set_ylabel("steps over one device's")
        axes.legend()
        return to_svg(figure, "Steps to one device's outcome over the lag of the first stage")


def advantage_map(steps_ratio_at: dict[float, float], label: str) -> str:
    """Draw by how much FBP's time to target is shorter than flushing schedules', over M and K.

    All is in units of M (F + B + W) with F = B = W: FBP's step is 1 and worth as `steps_ratio_at`
    says for the first stage's lag, interpolated; 1F1B's step is (M + K - 1) / M; no flushing
    schedule has a shorter one than max(1, K (F + B) / (M (F + B + W))). Where the lag was not
    measured nothing is drawn.
    """
    lags, values = zip(*sorted({0.0: 1.0, **steps_ratio_at}.items()), strict=True)
    stages, micro_batches = np.arange(2, 33), np.arange(2, 65)
    k, m = np.meshgrid(stages, micro_batches)
    lag = (k - 1) / m
    ratio = np.where(lag <= max(lags), np.interp(lag, lags, values), np.nan)
    rivals = {
        "1F1B": (m + k - 1) / m,
        "the least step of any flushing schedule": np.maximum(1.0, k * 2 / (m * 3)),
    }
    with figure_style():
        figure = new_figure(3.6)
        for axes, (name, step) in zip(
            figure.subplots(1, 2, sharey=True), rivals.items(), strict=True
        ):
            gain = step / ratio
            levels = [0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0]
            filled = axes.contourf(
                k, m, gain, levels=levels, cmap="RdBu", extend="both", vmin=0, vmax=2
            )
            lines = axes.contour(k, m, gain, levels=levels, colors="#1f2933", linewidths=0.6)
            axes.clabel(lines, fontsize=7)
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_title(f"over {name}")
            axes.set_xlabel("K")
            del filled
        figure.axes[0].set_ylabel("M")
        return to_svg(figure, f"Time to target of {label}: how many times shorter, over M and K")
