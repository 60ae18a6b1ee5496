"""Learning curves: how they are smoothed, where they cross a target, and what a baseline gains.

Every rule by which steps and seconds to a target are found stands here, apart from files and runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SMOOTHED_SHARE = 1 / 20
"""The window over which a training loss is averaged, as a share of a race's longest usual run."""

GAIN_SHARE = 0.95
"""The share of the baseline's median gain at which the target `baseline` lies."""


@dataclass(frozen=True)
class Curve:
    """The values of a metric after ascending numbers of optimizer steps; NaN where one is missing.

    `seconds` are those that training had taken by each of the steps, without evaluations.
    """

    steps: tuple[float, ...]
    seconds: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def end(self) -> tuple[float, float, float]:
        """Steps, seconds and value at the end."""
        return self.steps[-1], self.seconds[-1], self.values[-1]

    def seconds_after(self, steps: float) -> float:
        """Return the seconds of training after so many steps, in between on straight lines."""
        return float(np.interp(steps, self.steps, self.seconds))


def default_window(steps: int) -> int:
    """Return the steps over which training losses are averaged where the longest run has these."""
    return max(1, round(SMOOTHED_SHARE * steps))


def smoothed(losses: Sequence[float | None], window: int) -> list[float]:
    """Return the mean over the last `window` losses at every step from the `window`-th on.

    A run that is shorter than the window has one value, the mean of all of it. A window with a loss
    that was not finite has none (NaN).
    """
    values = np.array([math.nan if loss is None else loss for loss in losses])
    if not values.size:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(values, min(window, values.size))
    return [float(value) for value in windows.mean(axis=1)]


def crossing(curve: Curve, target: float, *, lower: bool) -> float:
    """Return after how many steps a curve is first at the target or beyond; infinite if never.

    Between two points of the curve it is a straight line. A curve that starts beyond the target
    crosses it at its first point.

    Args:
        curve: what a run has found, or the ends of runs of several lengths.
        target: the value to reach.
        lower: whether lower values are the better ones.
    """
    sign = -1.0 if lower else 1.0
    for at, value in enumerate(curve.values):
        if not sign * value >= sign * target:  # NaN reaches nothing
            continue
        if at == 0 or math.isnan(curve.values[at - 1]):
            return curve.steps[at]
        before = curve.values[at - 1]
        share = (target - before) / (value - before)
        return curve.steps[at - 1] + share * (curve.steps[at] - curve.steps[at - 1])
    return math.inf


def baseline_target(curves: Sequence[Curve], *, lower: bool) -> float | None:
    """Return the value at 95 % of the median gain, from first to last, of a baseline's runs.

    None if there is no run, or they have gained nothing.
    """
    ends = [(curve.values[0], curve.values[-1]) for curve in curves]
    gained = [(first, last - first) for first, last in ends if math.isfinite(last - first)]
    if not gained:
        return None
    start, gain = np.median(np.array(gained), axis=0)
    if (gain >= 0) if lower else (gain <= 0):
        return None
    return float(start + GAIN_SHARE * gain)
