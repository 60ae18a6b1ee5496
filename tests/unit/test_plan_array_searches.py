"""The planner's searches in arrays against looking at every element in turn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.planning.exact_integers import Column, WeightedSums, count_at_most
from hpc_lpm.planning.search import dominance
from hpc_lpm.planning.search.dominance import Queries, least_below, least_in_windows

NONE = 1000


@st.composite
def window_queries(draw):
    count = draw(st.integers(1, 40))
    values = draw(st.lists(st.integers(0, NONE - 1), min_size=count, max_size=count))
    ranks = draw(st.permutations(range(count)) | st.just(list(range(count))))
    window = st.tuples(st.integers(0, count), st.integers(0, count), st.integers(0, count))
    queries = draw(st.lists(window, min_size=1, max_size=40))
    begins, ends, bounds = (np.array(column) for column in zip(*queries, strict=True))
    return np.array(values), np.array(ranks), begins, ends, bounds


@pytest.mark.parametrize("pairs_at_once", [0, 2**16])
def test_least_below_is_the_least_of_those_in_the_window_and_below_the_bound(
    pairs_at_once, monkeypatch
):
    monkeypatch.setattr(dominance, "_PAIRS_AT_ONCE", pairs_at_once)

    @settings(max_examples=400, deadline=None, derandomize=True)
    @given(window_queries())
    def check(case):
        values, ranks, begins, ends, bounds = case
        expected = [
            min(
                (int(values[p]) for p in range(begin, end) if ranks[p] < bound),
                default=NONE,
            )
            for begin, end, bound in zip(begins, ends, bounds, strict=True)
        ]
        assert least_below(values, ranks, Queries(begins, ends, bounds), NONE).tolist() == expected

    check()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(window_queries())
def test_least_in_windows_is_the_least_of_each_slice(case):
    values, _, begins, ends, _ = case
    expected = [
        min(values[begin:end].tolist(), default=NONE)
        for begin, end in zip(begins, ends, strict=True)
    ]
    assert least_in_windows(values, begins, ends, NONE).tolist() == expected


# Beside small ones, integers whose differences doubles cannot hold.
NUMBERS = st.integers(0, 3) | st.sampled_from([2**60, 2**60 + 1, 2**60 + 2, 2**90, 2**90 + 1])


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12),
    st.lists(NUMBERS, min_size=2, max_size=2),
    NUMBERS,
    st.booleans(),
)
def test_comparisons_of_long_integers_are_exact(pairs, weights, constant, ascending):
    if ascending:
        columns = [sorted(column) for column in zip(*pairs, strict=True)]
        pairs = list(zip(*columns, strict=True))
    columns = [Column(values) for values in zip(*pairs, strict=True)]
    terms = list(zip(weights, columns, strict=True))
    cuts = range(len(pairs))
    sums = [weights[0] * first + weights[1] * second for first, second in pairs]
    limits = [value + constant for value in sums]
    counted = count_at_most(
        WeightedSums(terms, cuts), WeightedSums(terms, cuts, constant), ascending=ascending
    )
    assert counted.counts.tolist() == [sum(s <= limit for s in sums) for limit in limits]
    assert sorted(counted.order.tolist()) == list(cuts)
    for limit, count in zip(limits, counted.counts, strict=True):
        assert all(sums[at] <= limit for at in counted.order[:count])
    short = [s - limit for limit in limits for s in sums if s > limit]
    assert counted.gap == (min(short) if short else None)
