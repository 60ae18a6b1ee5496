"""Cutting graphs into chains, against trying every node on random graphs."""

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.profile_formats.linearise import (
    CycleError,
    articulation_nodes,
    blocks_between,
    topological_order,
)


@st.composite
def acyclic_graphs(draw, most_nodes=9):
    """Draw a graph without cycles whose numbering is not a topological order."""
    count = draw(st.integers(1, most_nodes))
    hidden_order = draw(st.permutations(range(count)))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    chain = draw(st.sets(st.sampled_from(list(pairwise(range(count)))))) if count > 1 else set()
    extra = draw(st.lists(st.sampled_from(pairs), max_size=8)) if pairs else []
    successors = [[] for _ in range(count)]
    for a, b in [*chain, *extra]:
        successors[hidden_order[a]].append(hidden_order[b])
    return successors


def some_path_avoids(successors, avoided):
    """Tell if a sink is reachable from a source without the avoided node."""
    entered = {target for targets in successors for target in targets}
    frontier = {node for node in range(len(successors)) if node not in entered} - {avoided}
    reached = set(frontier)
    while frontier:
        frontier = {t for node in frontier for t in successors[node]} - {avoided} - reached
        reached |= frontier
    return any(not successors[node] for node in reached)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(acyclic_graphs())
def test_articulation_nodes_are_those_without_which_no_sink_is_reached(successors):
    order = topological_order(successors)
    expected = {n for n in range(len(successors)) if not some_path_avoids(successors, n)}
    found = articulation_nodes(successors, order)
    assert set(found) == expected
    assert found == [node for node in order if node in expected]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(acyclic_graphs())
def test_a_topological_order_holds_every_node_once_and_follows_all_edges(successors):
    order = topological_order(successors)
    assert sorted(order) == list(range(len(successors)))
    assert all(order.index(n) < order.index(t) for n in order for t in successors[n])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(acyclic_graphs())
def test_every_edge_between_blocks_starts_at_an_articulation_node_and_ends_in_the_next(successors):
    order = topological_order(successors)
    closing = articulation_nodes(successors, order)
    blocks = blocks_between(order, closing)
    assert [node for block in blocks for node in block] == order
    block_of = {node: number for number, block in enumerate(blocks) for node in block}
    for node, targets in enumerate(successors):
        for target in targets:
            if block_of[target] != block_of[node]:
                assert node in closing
                assert block_of[target] == block_of[node] + 1


@settings(max_examples=300, deadline=None, derandomize=True)
@given(acyclic_graphs(), st.data())
def test_a_cycle_is_named_by_nodes_that_form_one(successors, data):
    order = topological_order(successors)
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(order) - 1)] * 2)))
    for node, following in pairwise(order[first : last + 1]):
        successors[node].append(following)
    successors[order[last]].append(order[first])
    with pytest.raises(CycleError) as caught:
        topological_order(successors)
    cycle = caught.value.nodes
    assert len(set(cycle)) == len(cycle)
    assert all(b in successors[a] for a, b in pairwise([*cycle, cycle[0]]))


def test_a_long_chain_with_skips_takes_linear_time():
    count = 100_000
    numbers = list(range(count))
    random.Random(0).shuffle(numbers)
    successors = [[] for _ in numbers]
    for place in range(count - 1):
        successors[numbers[place]].append(numbers[place + 1])
        if place % 4 == 0 and place + 3 < count:
            successors[numbers[place]].append(numbers[place + 3])
    began = time.process_time()
    found = articulation_nodes(successors, topological_order(successors))
    assert time.process_time() - began < 5
    # Of four places the two inside the skip are not crossed by it.
    assert found == [n for place, n in enumerate(numbers) if place % 4 in {0, 3}]
