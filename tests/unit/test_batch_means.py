import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import lfilter

from hpc_lpm.campaign.comparison.intervals import MeanError, mean_error, ratio_factor


def steps(
    random: np.random.Generator, count: int, correlation: float, mean: float, white: float = 0.0
) -> npt.NDArray[np.float64]:
    """Return step times that vary by 5 % and of which neighbours are so correlated.

    The share `white` of their variance is noise of each step alone.
    """
    settling = 300
    fresh = random.standard_normal(count + settling) * math.sqrt(1 - correlation**2)
    slow = lfilter([1.0], [1.0, -correlation], fresh)[settling:]
    values = math.sqrt(1 - white) * slow + math.sqrt(white) * random.standard_normal(count)
    return np.asarray(mean * (1 + 0.05 * values))


def coverage(count: int, correlation: float, white: float = 0.0) -> float:
    """Return how often the interval holds the true ratio of the rates of two runs."""
    random = np.random.default_rng(0)
    hits, given = 0, 0
    for _ in range(1500):
        first, second = (steps(random, count, correlation, mean, white) for mean in (0.1, 0.08))
        errors = mean_error(first.tolist()), mean_error(second.tolist())
        if errors[0] and errors[1]:
            given += 1
            ratio = float(first.mean() / second.mean())
            factor = ratio_factor(errors[0], errors[1])
            hits += ratio / factor <= 1.25 <= ratio * factor
    assert given > 1200
    return hits / given


@pytest.mark.parametrize(
    ("count", "correlation"), [(60, 0.0), (60, 0.3), (174, 0.5), (500, 0.8), (1000, 0.9)]
)
def test_the_interval_holds_as_often_as_it_says_although_steps_are_correlated(
    count: int, correlation: float
) -> None:
    assert 0.93 <= coverage(count, correlation) <= 0.97


def test_drift_within_a_short_run_costs_some_of_that() -> None:
    assert 0.87 <= coverage(106, 0.85, white=0.67) <= 0.93
    assert coverage(400, 0.85, white=0.67) >= 0.93


def test_single_steps_would_promise_too_much() -> None:
    random = np.random.default_rng(0)
    wider = []
    for _ in range(50):
        correlated = steps(random, 500, 0.8, 0.1)
        naive = correlated.std(ddof=1) / math.sqrt(500) / correlated.mean()
        found = mean_error(correlated.tolist())
        assert found is not None
        wider.append(found.relative / naive)
    # The variance of the mean grows by (1 + r) / (1 - r) = 9.
    assert 2.4 < np.mean(wider) < 3.2


def test_the_error_is_that_of_the_means_of_batches() -> None:
    # Eight batches of four steps each; up and down in between, so that neighbours do not resemble.
    means = [10.0, 11.0, 9.0, 10.5, 9.5, 10.0, 11.0, 9.0]
    seconds = [mean + way for mean in means for way in (3, -3, 3, -3)]
    found = mean_error(seconds)
    assert found is not None
    assert found.degrees == 7
    assert found.relative == pytest.approx(math.sqrt(4.5 / 7 / 8) / 10)


@pytest.mark.parametrize("seconds", [[], [1.0], [1.0, 2.0] * 9, list(range(1, 400))])
def test_too_few_steps_for_their_correlation_have_no_error(seconds: list[float]) -> None:
    assert mean_error(seconds) is None


@pytest.mark.parametrize("seconds", [0.25, 0.1, 64 / 323.2])
def test_steps_that_do_not_vary_are_known_exactly(seconds: float) -> None:
    found = mean_error([seconds] * 38)
    assert found is not None
    assert found.degrees == 7
    assert found.relative == pytest.approx(0.0, abs=1e-15)
    assert ratio_factor(found, found) == pytest.approx(1.0, abs=1e-14)


def test_a_run_that_varies_alone_decides_the_width() -> None:
    # Two-sided 95 % quantile of Student's t with 9 degrees of freedom, from the tables.
    assert ratio_factor(MeanError(0.01, 9), MeanError(0.0, 4)) == pytest.approx(
        math.exp(0.02262), abs=1e-5
    )
