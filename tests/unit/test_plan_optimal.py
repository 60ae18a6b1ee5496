"""The planner against every partition there is, priced here from the definitions alone."""

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_lpm.errors import InputError
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.planning.search import dominance
from hpc_lpm.profile_file import Link, LinkProfile, Profile
from tests.unit.planner_instances import Instance, layers_of, price


def brute_force(instance):
    """Return the best cuts of all partitions in the planner's order; None if none is feasible."""
    layers = len(instance.profile.layers)
    partitions = (
        (0, *inner, layers) for inner in combinations(range(1, layers), instance.stages - 1)
    )
    priced = [(price(instance, cuts), cuts) for cuts in partitions]
    feasible = [(*triple, cuts) for triple, cuts in priced if triple is not None]
    if not feasible:
        return None
    shortest = min(period for period, *_ in feasible)
    longest = (1 + Fraction(instance.options.tolerance)) * shortest
    return min(entry[1:] for entry in feasible if entry[0] <= longest)[2]


def plan_cuts(instance):
    plan = make_plan(instance.profile, "0" * 64, instance.stages, "lpm", instance.options)
    return plan.cuts


# Few different values make ties; the free floats make sums that doubles cannot hold.
TIED = layers_of(st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.integers(0, 3))
FREE = layers_of(
    st.floats(0, 10, allow_subnormal=False) | st.sampled_from([0.1, 0.2, 0.3]),
    st.integers(0, 1000),
)
HUGE = layers_of(st.floats(0, 1e300), st.integers(0, 2**70))


@st.composite
def instances(draw):
    layers = draw(
        st.one_of(
            st.lists(TIED, min_size=1, max_size=9),
            st.lists(FREE, min_size=1, max_size=9),
            st.lists(HUGE, min_size=1, max_size=5),
        )
    )
    stages = draw(st.integers(1, len(layers)))
    links = st.builds(
        Link,
        latency_seconds=st.sampled_from([0.0, 0.1, 1.0]),
        bandwidth_bytes_per_second=st.sampled_from([0.7, 1.0, 3.0, 1e9]),
    )
    link = LinkProfile(**draw(links).model_dump(), overlap=draw(st.booleans()))
    largest = sum(x.parameter_bytes + x.activation_bytes for x in layers) + 1
    limit = st.integers(1, 2 * largest)
    speed = st.sampled_from([0.5, 1.0, 1.3, 2.0])
    options = PlanOptions(
        tolerance=draw(st.sampled_from([0.0, 0.02, 0.5, 2.0])),
        memory_limit=draw(st.none() | limit | st.tuples(*[limit] * stages)),
        lead=draw(st.integers(1, 3)),
        micro_batches=draw(st.integers(1, 5)),
        weights=draw(st.sampled_from(["replay", "live", "stash"])),
        optimizer=draw(st.sampled_from(["sgd", "momentum", "adam", "adamw"])),
        overlap=draw(st.sampled_from([None, True, False])),
        speeds=draw(st.none() | st.tuples(*[speed] * stages)),
        links=draw(st.none() | st.tuples(*[links] * (stages - 1))),
    )
    profile = Profile(
        model="random", micro_batch=1, device="cpu", dtype="float32", layers=layers, link=link
    )
    return Instance(profile, stages, options)


@pytest.mark.parametrize(
    ("examples", "pairs_at_once"),
    [
        pytest.param(2000, 2**16, id="usual"),
        pytest.param(600, 0, id="as_in_large_instances"),
    ],
)
def test_planner_chooses_the_cuts_that_trying_all_partitions_chooses(
    examples, pairs_at_once, monkeypatch
):
    monkeypatch.setattr(dominance, "_PAIRS_AT_ONCE", pairs_at_once)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(instances())
    def check(instance):
        expected = brute_force(instance)
        if expected is None:
            with pytest.raises(InputError, match="memory limit"):
                plan_cuts(instance)
        else:
            assert plan_cuts(instance) == expected

    check()
