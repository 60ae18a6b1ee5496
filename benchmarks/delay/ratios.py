"""How many times the steps of one device a pipeline needs to the loss that one device ends at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpc_lpm.campaign.statistics import Estimate, estimate

_RESAMPLES = 10_000


@dataclass(frozen=True)
class StepsRatio:
    """The ratio of steps to the target: mean over seeds with its 95 % interval.

    `reached` of `seeds` seeds reached the target within `longest` times the steps; the others count
    as infinitely long, so that the mean is infinite unless all have.
    """

    mean: float
    low: float
    high: float
    reached: int
    seeds: int
    longest: float

    def __str__(self) -> str:
        """Return the text of tables."""
        if self.reached < self.seeds:
            return f"{self.reached} of {self.seeds} within {self.longest:g}"
        if self.seeds == 1:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f}-{self.high:.2f})"


def length_to_target(
    lengths: Sequence[float], outcomes: Sequence[float], target: float, *, lower_is_better: bool
) -> float:
    """Return the shortest length of a run that ends at the target, infinite if none does.

    Each length is a run of its own, with a schedule of rates of its own. Between two lengths the
    outcome is taken as linear in the logarithm of the length. A run that is already as good at the
    shortest length counts with that one.
    """
    sign = 1.0 if lower_is_better else -1.0
    pairs = sorted(zip(lengths, outcomes, strict=True))
    before: tuple[float, float] | None = None
    for length, outcome in pairs:
        gap = sign * (outcome - target)
        if gap <= 0:
            if before is None:
                return length
            last, last_gap = before
            share = last_gap / (last_gap - gap)
            return math.exp(math.log(last) + share * (math.log(length) - math.log(last)))
        before = length, gap
    return math.inf


def steps_ratio(
    contestant: pd.DataFrame, baseline: pd.DataFrame, *, lower_is_better: bool, margin: float = 0.0
) -> StepsRatio:
    """Return the ratio of a contestant over one device, both tables of outcomes by length and seed.

    The target is the mean outcome of one device's runs of length 1, or what is worse than that by
    `margin`; with a margin it is the mean over the seeds that has to reach it. The interval is that
    of the bootstrap over the contestant's seeds and the baseline's.
    """
    ends = baseline[baseline["length"] == 1.0]["outcome"].to_numpy()
    ends = ends + margin if lower_is_better else ends - margin
    curves = [
        dict(zip(group["length"], group["outcome"], strict=True))
        for _, group in contestant.groupby("seed")
    ]

    def lengths_of(chosen: Sequence[dict[float, float]], target: float) -> list[float]:
        # Where outcomes end is mostly noise if there is a margin: the mean is what may miss it.
        told = [_mean_curve(chosen)] if margin else chosen
        return [
            length_to_target(
                list(curve), list(curve.values()), target, lower_is_better=lower_is_better
            )
            for curve in told
        ]

    own = lengths_of(curves, float(ends.mean()))
    random = np.random.default_rng(0)
    means = []
    for _ in range(_RESAMPLES if len(curves) > 1 else 0):
        target = float(random.choice(ends, len(ends)).mean())
        drawn = random.integers(len(curves), size=len(curves))
        means.append(float(np.mean(lengths_of([curves[i] for i in drawn], target))))
    low, high = (
        np.quantile(means, [0.025, 0.975], method="nearest") if means else (math.nan, math.nan)
    )
    reached = sum(map(math.isfinite, own)) * len(curves) // len(own)
    longest = float(contestant["length"].max())
    return StepsRatio(float(np.mean(own)), float(low), float(high), reached, len(curves), longest)


def _mean_curve(curves: Sequence[dict[float, float]]) -> dict[float, float]:
    """Return the mean outcome at each length, of the seeds that were trained for so long."""
    lengths = sorted({length for curve in curves for length in curve})
    return {
        length: float(np.mean([curve[length] for curve in curves if length in curve]))
        for length in lengths
    }


def final_outcome(rows: pd.DataFrame) -> Estimate:
    """Return the median outcome over seeds at length 1 with its interval."""
    return estimate([float(value) for value in rows[rows["length"] == 1.0]["outcome"]])
