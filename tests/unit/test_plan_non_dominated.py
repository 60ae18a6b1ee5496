"""Non-dominated triples against comparing each with each."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.planning.pareto.non_dominated import non_dominated


def compared_each_with_each(triples):
    distinct = sorted(set(triples))
    return [
        mine
        for mine in distinct
        if not any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in distinct
        )
    ]


def found(triples):
    columns = [list(column) for column in zip(*triples, strict=True)]
    fits = max(map(max, columns)) < 2**61
    dtype = np.int64 if fits else object
    kept = non_dominated(*(np.array(column, dtype=dtype) for column in columns))
    return [triples[position] for position in kept]


few = st.integers(0, 4)
triples = st.lists(
    st.tuples(few, few, few)
    | st.tuples(st.integers(0, 100), st.integers(0, 2**80), st.integers(0, 9)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(triples)
def test_few_triples(triples):
    assert found(triples) == compared_each_with_each(triples)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("largest", [3, 40, 10**6])
def test_many_triples(seed, largest):
    # On a plane (a + b + c about constant) most stay, in a cube nearly none.
    draw = random.Random(seed)
    triples = []
    for _ in range(700):
        first, second = draw.randint(0, largest), draw.randint(0, largest)
        plane = 2 * largest - first - second
        third = plane + draw.randint(0, largest // 3) if seed % 2 else draw.randint(0, largest)
        triples.append((first, second, third))
    assert found(triples) == compared_each_with_each(triples)


def test_no_triples_leave_none():
    nothing = np.zeros(0, dtype=np.int64)
    assert len(non_dominated(nothing, nothing, nothing)) == 0
