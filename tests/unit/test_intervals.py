from itertools import combinations_with_replacement
from math import comb

import numpy as np
import pytest

from hpc_lpm.campaign.comparison.intervals import (
    difference_of_proportions,
    median_of_population,
    ratio_of_medians,
)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_of_a_ratio_holds_as_often_as_it_says(skewed: bool) -> None:
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        noise = random.exponential(0.05, (2, 6)) if skewed else random.normal(0, 0.03, (2, 6))
        low, high = ratio_of_medians((100 + noise[0]).tolist(), (120 + 1.2 * noise[1]).tolist())
        hits += low <= 1.2 <= high
    assert 184 <= hits <= 199


def test_the_interval_of_a_ratio_is_that_of_all_possible_resamples() -> None:
    first, second = [100.0, 103.0, 109.0], [121.0, 118.0, 130.0]
    # Of 3 values drawn 3 times there are 10 resamples, which come with different weights.
    ratios, weights = [], []
    for x in combinations_with_replacement(range(3), 3):
        for y in combinations_with_replacement(range(3), 3):
            ratios.append(np.median([second[i] for i in y]) / np.median([first[i] for i in x]))
            weights.append(arrangements(x) * arrangements(y))
    order = np.argsort(ratios)
    share = np.cumsum(np.array(weights)[order]) / sum(weights)
    low, high = ratio_of_medians(first, second)
    assert low == pytest.approx(np.array(ratios)[order][np.searchsorted(share, 0.025)])
    assert high == pytest.approx(np.array(ratios)[order][np.searchsorted(share, 0.975)])


def arrangements(chosen: tuple[int, ...]) -> int:
    left, ways = len(chosen), 1
    for value in set(chosen):
        ways *= comb(left, chosen.count(value))
        left -= chosen.count(value)
    return ways


def test_the_same_values_give_the_same_interval() -> None:
    values = [1.0, 1.1, 1.3, 1.2, 1.5, 1.4]
    assert ratio_of_medians(values, values) == ratio_of_medians(list(values), list(values))


def test_values_that_do_not_vary_give_an_interval_of_no_width() -> None:
    assert ratio_of_medians([0.1] * 6, [0.1] * 7) == (1.0, 1.0)
    assert median_of_population([0.2] * 6) == (0.2, 0.2)


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (12, 3), (20, 6)])
def test_the_interval_of_a_median_takes_the_ranks_that_miss_it_least_often(
    count: int, rank: int
) -> None:
    # The median is below the r-th smallest if fewer than r of the values are below it.
    assert 2 * sum(comb(count, k) for k in range(rank)) / 2**count <= 0.05
    assert 2 * sum(comb(count, k) for k in range(rank + 1)) / 2**count > 0.05
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert median_of_population(values.tolist()) == (rank, count + 1 - rank)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # Table II of Newcombe (1998), method 10.
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 10), (10, 10), 0.6075, 1.0000),
        ((0, 20), (10, 10), 0.6791, 1.0000),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    found = difference_of_proportions(
        first[0] / first[1], first[1], second[0] / second[1], second[1]
    )
    assert found == pytest.approx((low, high), abs=5e-5)
