"""95 % confidence intervals of changes between two campaigns, each with its source.

All of them assume that nothing but chance differs between the two campaigns: none covers a drift
in between, such as that of a shared machine's speed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, bootstrap, quantile_test
from scipy.stats import t as student

from hpc_lpm.campaign.statistics import CONFIDENCE, RESAMPLES

ConfidenceInterval = tuple[float, float]

FEWEST_BATCHES, MOST_BATCHES = 5, 8
FEWEST_STEPS = 4
TIMES_CORRELATION = 3


@dataclass(frozen=True)
class MeanError:
    """The standard error of a mean, relative to the mean, and its degrees of freedom."""

    relative: float
    degrees: int


def ratio_of_medians(first: Sequence[float], second: Sequence[float]) -> ConfidenceInterval:
    """Return the interval of median(second) / median(first) for two independent samples.

    The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
    13), both samples resampled independently of each other. From 6 values on each side it holds
    between 95 and 97 % of the time, for normal and for skewed values alike. The same values give
    the same interval; values that do not vary give an interval of no width.
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


def median_of_population(values: Sequence[float]) -> ConfidenceInterval:
    """Return the interval of the median of the population that `values` are drawn from.

    Its ends are observed values, chosen by their rank (Conover, Practical Nonparametric Statistics,
    1999, section 3.2): it holds at least 95 % of the time whatever the distribution, which the
    bootstrap does not for a few values in coarse steps, such as accuracies. With fewer than 6
    values, no such interval is bounded.
    """
    found = quantile_test(np.asarray(values, dtype=float), p=0.5).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


def difference_of_proportions(
    first: float, first_count: int, second: float, second_count: int
) -> ConfidenceInterval:
    """Return the interval of second - first, two shares of independent trials with these counts.

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


def mean_error(step_seconds: Sequence[float]) -> MeanError | None:
    """Return the standard error of the mean step time, by the method of batch means.

    Slow steps come in groups, so that an error from single steps would be too small. Means of long
    batches of consecutive steps are nearly independent (Schmeiser, Batch size effects in the
    analysis of simulation output, Operations Research 30, 1982: more than about 10 batches gain
    little, while fewer are longer). A batch is at least 3 times as long as the autocorrelation time
    of the steps, (1 + r) / (1 - r) for an autocorrelation r of neighbours. With too few steps for 5
    such batches the result is None, since no interval is better than one that is too narrow.
    Intervals from this error hold 94 to 97 % of the time where r describes the dependence fully,
    and about 90 % in a run of 100 steps that also drifts for tens of steps.

    Args:
        step_seconds: times of the steps in order, without those at the start that do not count.
    """
    seconds = np.asarray(step_seconds, dtype=float)
    correlation = _autocorrelation(seconds)
    shortest = math.ceil(TIMES_CORRELATION * (1 + correlation) / (1 - correlation))
    batches = min(MOST_BATCHES, seconds.size // max(shortest, FEWEST_STEPS))
    if batches < FEWEST_BATCHES:
        return None
    length = seconds.size // batches
    means = seconds[seconds.size - batches * length :].reshape(batches, length).mean(axis=1)
    error = float(means.std(ddof=1)) / math.sqrt(batches)
    return MeanError(error / float(seconds.mean()), batches - 1)


def ratio_factor(first: MeanError, second: MeanError) -> float:
    """Return the factor by which the 95 % interval of a ratio of two means extends to each side.

    Student's t on the logarithm of the ratio, with the degrees of freedom of Welch (1947), which
    the two runs' different errors call for.
    """
    squares = first.relative**2, second.relative**2
    together = sum(squares)
    if together == 0:
        return 1.0
    parts = squares[0] ** 2 / first.degrees + squares[1] ** 2 / second.degrees
    quantile = float(student.ppf(0.5 + CONFIDENCE / 2, together**2 / parts))
    return math.exp(quantile * math.sqrt(together))


def _autocorrelation(seconds: npt.NDArray[np.float64]) -> float:
    """Return the autocorrelation of neighbouring steps; 0 if it is negative or nothing varies."""
    # The mean of equal values may be rounded, and the remainders would correlate perfectly.
    if seconds.size < FEWEST_STEPS or np.ptp(seconds) == 0:
        return 0.0
    apart = seconds - seconds.mean()
    return max(0.0, float(apart[1:] @ apart[:-1]) / float(apart @ apart))


def _ratio(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], axis: int = -1
) -> npt.NDArray[np.float64]:
    return np.asarray(np.median(second, axis=axis) / np.median(first, axis=axis))


def _wilson(share: float, count: int) -> ConfidenceInterval:
    test = binomtest(round(share * count), count)
    found = test.proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)
