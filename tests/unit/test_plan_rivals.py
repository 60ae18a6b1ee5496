"""The planners `greedy` and `pipedream`: what their originals promise, on exact layer times."""

from fractions import Fraction
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

RIVALS = ("greedy", "pipedream")
TIED = st.sampled_from([0.0, 1.0, 2.0, 3.0])
FREE = st.floats(0, 10, allow_subnormal=False) | st.sampled_from([0.1, 0.2, 0.3])
HUGE = st.floats(0, 1e300)
TIMES = st.one_of(*(st.lists(times, min_size=1, max_size=9) for times in (TIED, FREE, HUGE)))


def cuts_of(planner, seconds, stages, **options):
    """Return the cuts of a chain of layers that take `seconds`, a third of it forwards."""
    profile = Profile(
        model="timed",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=time / 3,
                backward_seconds=time - time / 3,
                output_bytes=10**9 * (number % 2),
                parameter_bytes=number,
                activation_bytes=0,
            )
            for number, time in enumerate(seconds)
        ),
        link=LinkProfile(latency_seconds=1.0, bandwidth_bytes_per_second=1e9),
    )
    return make_plan(profile, "0" * 64, stages, planner, PlanOptions(**options)).cuts


def layer_times(seconds):
    """Return the exact time of every layer of `cuts_of`."""
    return [Fraction(time / 3) + Fraction(time - time / 3) for time in seconds]


def stage_times(seconds, cuts):
    times = layer_times(seconds)
    return [sum(times[start:stop], Fraction(0)) for start, stop in pairwise(cuts)]


def least_slowest(seconds, stages):
    """Try all partitions."""
    return min(
        max(stage_times(seconds, (0, *inner, len(seconds))))
        for inner in combinations(range(1, len(seconds)), stages - 1)
    )


@given(TIMES, st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_partition_has_a_faster_slowest_stage_than_pipedreams(seconds, data):
    stages = data.draw(st.integers(1, len(seconds)))
    cuts = cuts_of("pipedream", seconds, stages)
    assert max(stage_times(seconds, cuts)) == least_slowest(seconds, stages)


@given(st.lists(TIED, min_size=1, max_size=8), st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_pipedream_makes_ties_unique_by_the_smallest_last_cut(seconds, data):
    stages = data.draw(st.integers(1, len(seconds)))

    def expected(stop, number):
        if number == 1:
            return (0, stop)

        def slowest(cut):
            last = sum(layer_times(seconds)[cut:stop])
            return max(least_slowest(seconds[:cut], number - 1), last)

        last_cut = min(range(number - 1, stop), key=lambda cut: (slowest(cut), cut))
        return (*expected(last_cut, number - 1), stop)

    assert cuts_of("pipedream", seconds, stages) == expected(len(seconds), stages)


@given(TIMES, st.data())
@settings(max_examples=500, deadline=None, derandomize=True)
def test_greedys_stages_differ_by_at_most_the_slowest_layer(seconds, data):
    stages = data.draw(st.integers(1, len(seconds)))
    times = stage_times(seconds, cuts_of("greedy", seconds, stages))
    assert max(times) - min(times) <= max(layer_times(seconds))


def test_greedys_promise_holds_where_many_layers_have_to_move():
    seconds = [float(number**3 % 101) for number in range(300)] + [0.0] * 100 + [100.0] * 20
    cuts = cuts_of("greedy", seconds, 37)
    times = stage_times(seconds, cuts)
    assert max(times) - min(times) <= 100
    assert cuts != cuts_of("uniform", seconds, 37)


def test_greedy_leaves_an_even_partition_as_it_is():
    assert cuts_of("greedy", [2.0, 1.0, 2.0, 2.0, 2.0, 1.0], 3) == (0, 2, 4, 6)


def test_greedy_moves_one_layer_at_a_time_towards_the_nearest_shortest_stage():
    # Uniform gives 12 | 2 | 2. The second stage takes a layer of the first: 8 | 6 | 2. Now the last
    # is shortest and takes two layers of the second: 8 | 5 | 3 and 8 | 4 | 4, which is even enough.
    assert cuts_of("greedy", [4.0, 4.0, 4.0, 1.0, 1.0, 1.0, 1.0], 3) == (0, 2, 3, 7)


@pytest.mark.parametrize("planner", RIVALS)
@given(TIMES, st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_stage_holds_a_layer_even_where_layers_take_no_time(planner, seconds, data):
    stages = data.draw(st.integers(1, len(seconds)))
    cuts = cuts_of(planner, seconds, stages)
    assert (len(cuts), cuts[0], cuts[-1]) == (stages + 1, 0, len(seconds))
    assert list(cuts) == sorted(set(cuts))


@pytest.mark.parametrize("planner", RIVALS)
def test_one_stage_holds_all_layers_and_as_many_stages_as_layers_one_each(planner):
    assert cuts_of(planner, [0.0, 5.0, 1.0], 1) == (0, 3)
    assert cuts_of(planner, [0.0, 5.0, 1.0], 3) == (0, 1, 2, 3)


@pytest.mark.parametrize("planner", RIVALS)
def test_transfers_memory_speeds_and_replays_do_not_move_the_cuts(planner):
    seconds = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    plain = cuts_of(planner, seconds, 3)
    assert cuts_of(planner, seconds, 3, overlap=False, weights="live") == plain
    assert cuts_of(planner, seconds, 3, speeds=(1.0, 0.1, 5.0), memory_limit=1) == plain
