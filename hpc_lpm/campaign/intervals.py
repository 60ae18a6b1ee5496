"""95 % intervals of changes between two campaigns, each with its source.

All of them need equal conditions on both sides but chance: what drifts between two campaigns, such
as the speed of a shared machine, is in none of them.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, bootstrap, quantile_test

from hpc_lpm.campaign.statistics import CONFIDENCE, RESAMPLES

Interval = tuple[float, float]


def ratio_of_medians(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return the interval of median(second) / median(first) of two independent samples.

    The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
    13), both samples resampled independently of each other. From 6 values on each side it holds
    between 95 and 97 % of the time, for normal and for skewed values alike. The same values give
    the same interval, and values that do not vary one of no width.
    """
    interval = bootstrap(
        (np.asarray(first, dtype=float), np.asarray(second, dtype=float)),
        _ratio,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def median_of_population(values: Sequence[float]) -> Interval:
    """Return the interval of the median that `values` are drawn from.

    Its ends are observed values, chosen by their rank (Conover, Practical Nonparametric Statistics,
    1999, section 3.2): it holds at least 95 % of the time whatever the distribution, which the
    bootstrap does not for few values in coarse steps, as accuracies are. Below 6 values no such
    interval is bounded.
    """
    found = quantile_test(np.asarray(values, dtype=float), p=0.5).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


def difference_of_proportions(
    first: float, first_count: int, second: float, second_count: int
) -> Interval:
    """Return the interval of second - first, two shares of so many independent trials each.

    Newcombe (1998), Statistics in Medicine 17, 873 to 890, method 10: the differences between each
    share and the near and far ends of Wilson's intervals, combined as the sides of right angles.
    """
    low_a, high_a = _wilson(first, first_count)
    low_b, high_b = _wilson(second, second_count)
    difference = second - first
    return (
        difference - math.hypot(second - low_b, high_a - first),
        difference + math.hypot(high_b - second, first - low_a),
    )


def _ratio(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], axis: int = -1
) -> npt.NDArray[np.float64]:
    return np.asarray(np.median(second, axis=axis) / np.median(first, axis=axis))


def _wilson(share: float, count: int) -> Interval:
    test = binomtest(round(share * count), count)
    found = test.proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)
