"""The Pareto front against all partitions, priced here from the definitions alone."""

import time
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pareto import partial_plans, stage_ranks
from hpc_lpm.planning.pareto.front import pareto_front
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.profile_file import LayerProfile, Link, LinkProfile, Profile
from tests.unit.planner_instances import Instance, layers_of, price

PROFILES = Path(__file__).parents[2] / "results" / "reference" / "engine"


def model_of(instance):
    return CostModel(instance.profile, instance.stages, instance.options)


def all_triples(instance):
    """Return every (period, bytes, memory) there is with its smallest cuts."""
    layers = len(instance.profile.layers)
    smallest = {}
    for inner in combinations(range(1, layers), instance.stages - 1):
        triple = price(instance, (0, *inner, layers))
        if triple is not None:
            smallest.setdefault(triple, (0, *inner, layers))
    return smallest


def brute_force(instance):
    triples = all_triples(instance)
    return [
        (*mine, cuts)
        for mine, cuts in sorted(triples.items())
        if not any(
            other != mine and all(theirs <= ours for theirs, ours in zip(other, mine, strict=True))
            for other in triples
        )
    ]


# Few values make ties and zeros, free ones wide fronts, huge ones leave machine integers behind.
FEW = layers_of(st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 2))
FREE = layers_of(st.floats(0, 10, allow_subnormal=False), st.integers(0, 1000))
HUGE = layers_of(st.floats(0, 1e300), st.integers(0, 2**70))


@st.composite
def instances(draw):
    layers = draw(
        st.lists(FEW, min_size=1, max_size=9)
        | st.lists(FREE, min_size=6, max_size=9)
        | st.lists(HUGE, min_size=4, max_size=6)
    )
    stages = draw(st.integers(1, len(layers)) | st.integers(1, min(4, len(layers))))
    links = st.builds(
        Link,
        latency_seconds=st.sampled_from([0.0, 0.1, 1.0]),
        bandwidth_bytes_per_second=st.sampled_from([0.7, 300.0, 1e9]),
    )
    link = LinkProfile(**draw(links).model_dump(), overlap=draw(st.booleans()))
    everything = 5 * sum(layer.parameter_bytes + layer.activation_bytes for layer in layers)
    limit = st.sampled_from([1 + everything // share for share in (1, 2, 3, 4, 6, 9)])
    options = PlanOptions(
        tolerance=draw(st.sampled_from([0.0, 0.02, 0.5])),
        memory_limit=draw(st.none() | st.none() | limit | st.tuples(*[limit] * stages)),
        lead=draw(st.integers(1, 2)),
        micro_batches=draw(st.integers(1, 4)),
        weights=draw(st.sampled_from(["replay", "live", "stash"])),
        optimizer=draw(st.sampled_from(["sgd", "momentum", "adam"])),
        links=draw(st.none() | st.none() | st.tuples(*[links] * (stages - 1))),
        speeds=draw(st.none() | st.tuples(*[st.sampled_from([0.5, 1.0, 1.3])] * stages)),
    )
    profile = Profile(
        model="random", micro_batch=1, device="cpu", dtype="float32", layers=layers, link=link
    )
    return Instance(profile, stages, options)


def as_tuples(front):
    return [
        (point.period, point.boundary_bytes, point.memory_bytes, point.cuts)
        for point in front.points
    ]


def many(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


@many(1500)
@given(instances())
def test_front_is_that_of_trying_all_partitions(instance):
    expected = brute_force(instance)
    event("infeasible" if not expected else f"{min(len(expected), 5)} points or more")
    if expected:
        assert as_tuples(pareto_front(model_of(instance))) == expected
        return
    with pytest.raises(InputError) as from_planner:
        make_plan(instance.profile, "0" * 64, instance.stages, "lpm", instance.options)
    with pytest.raises(InputError) as from_front:
        pareto_front(model_of(instance))
    assert str(from_front.value) == str(from_planner.value)


@many(500)
@given(instances())
def test_chosen_point_has_the_bytes_and_memory_of_the_planner_at_the_least_period(instance):
    triples = all_triples(instance)
    if not triples:
        return
    longest = (1 + Fraction(instance.options.tolerance)) * min(period for period, *_ in triples)
    sent, memory = min(triple[1:] for triple in triples if triple[0] <= longest)
    period = min(triple[0] for triple in triples if triple[1:] == (sent, memory))
    front = pareto_front(model_of(instance))
    assert as_tuples(front)[front.chosen] == (
        period,
        sent,
        memory,
        triples[period, sent, memory],
    )
    plan = make_plan(instance.profile, "0" * 64, instance.stages, "lpm", instance.options)
    model = model_of(instance)
    assert model.boundary_bytes(plan.cuts) == sent
    assert model.largest_memory_bytes(plan.cuts) == memory
    if model.period(plan.cuts) == period:
        assert plan.cuts == front.points[front.chosen].cuts


@many(500)
@given(instances(), st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]))
def test_bounded_front_is_the_part_of_the_front_within_the_bound(instance, more):
    whole = brute_force(instance)
    if not whole:
        return
    within = instance.options.tolerance + more
    longest = (1 + Fraction(within)) * whole[0][0]
    bounded = pareto_front(model_of(instance), within)
    assert as_tuples(bounded) == [point for point in whole if point[0] <= longest]


def profile_of(layers, **link):
    """Build a profile from (forward seconds, output bytes, activation bytes) of every layer."""
    return Profile(
        model="sized",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=seconds,
                backward_seconds=0,
                output_bytes=sent,
                parameter_bytes=0,
                activation_bytes=held,
            )
            for number, (seconds, sent, held) in enumerate(layers)
        ),
        link=LinkProfile(latency_seconds=0, bandwidth_bytes_per_second=1e9, **link),
    )


def test_front_of_three_layers_worked_by_hand():
    # Two stages: (1 | 2, 3) takes max(4, 5) s, sends 7 and holds max(2 * 1, 5) bytes;
    # (1, 2 | 3) takes max(6, 3) s, sends 2 and holds max(2 * 3, 3).
    profile = profile_of([(4, 7, 1), (2, 2, 2), (3, 0, 3)])
    model = CostModel(profile, 2, PlanOptions(weights="live"))
    front = pareto_front(model)
    assert as_tuples(front) == [(5, 7, 5, (0, 1, 3)), (6, 2, 6, (0, 2, 3))]
    assert front.chosen == 0
    model = CostModel(profile, 2, PlanOptions(weights="live", tolerance=0.2))
    assert pareto_front(model).chosen == 1
    # Where the second holds no more than the first and is the faster, it is alone.
    profile = profile_of([(4, 7, 1), (1, 2, 1), (5, 0, 9)])
    model = CostModel(profile, 2, PlanOptions(weights="live"))
    assert as_tuples(pareto_front(model)) == [(5, 2, 9, (0, 2, 3))]


def test_front_of_a_longer_chain_is_that_of_trying_all_partitions():
    layers = [
        ((number * 7919 % 101 + 1) / 64, number * 104729 % 13, number * 31 % 17)
        for number in range(24)
    ]
    for overlap in (True, False):
        instance = Instance(profile_of(layers, overlap=overlap), 4, PlanOptions())
        expected = brute_force(instance)
        assert len(expected) > 20
        assert as_tuples(pareto_front(model_of(instance))) == expected


def test_front_of_a_measured_profile_is_that_of_trying_all_partitions():
    instance = Instance(Profile.read(PROFILES / "profile-resnet110.json"), 2, PlanOptions())
    assert as_tuples(pareto_front(model_of(instance))) == brute_force(instance)


@pytest.mark.parametrize("weights", ["replay", "live", "stash"])
def test_front_of_a_deep_network_is_found_in_seconds(weights):
    profile = Profile.read(PROFILES / "profile-resnet110.json")
    began = time.process_time()
    model = CostModel(profile, 8, PlanOptions(weights=weights))
    front = pareto_front(model)
    assert time.process_time() - began < 30
    assert len(front.points) > 100
    for point in front.points:
        assert (point.period, point.boundary_bytes, point.memory_bytes) == (
            model.period(point.cuts),
            model.boundary_bytes(point.cuts),
            model.largest_memory_bytes(point.cuts),
        )


@many(300)
@given(instances(), st.none() | st.floats(0, 30, allow_subnormal=False))
def test_ranked_stages_are_those_within_the_limits_with_their_period_and_memory(instance, longest):
    model = model_of(instance)
    longest = None if longest is None else Fraction(longest)
    ranks = stage_ranks.rank_stages(model, longest)
    for number, stage in enumerate(ranks.stages):
        limit = model.factors[number].memory_limit_bytes
        for row, start in enumerate(stage.starts):
            for column, stop in enumerate(stage.stops):
                period, memory = stage.period[row, column], stage.memory[row, column]
                expected = start < stop and (
                    longest is None or model.stage_period(number, start, stop) <= longest
                )
                held = model.memory_bytes(number, start, stop) if start < stop else 0
                expected &= limit is None or held <= limit
                assert (period < stage.none) == expected
                if expected:
                    assert ranks.period(period) == model.stage_period(number, start, stop)
                    assert ranks.memory_bytes[memory] == held


@pytest.mark.parametrize("within", [0.019, -1.0, float("nan"), float("inf")])
def test_bound_below_the_tolerance_is_bad_input(within):
    model = CostModel(profile_of([(1, 1, 1)] * 3), 2, PlanOptions())
    with pytest.raises(InputError, match=r"not below the --tolerance of 0\.02"):
        pareto_front(model, within)


@pytest.mark.parametrize(
    ("module", "limit"), [(stage_ranks, "MOST_STAGES"), (partial_plans, "MOST_LABELS")]
)
def test_front_too_wide_is_bad_input_that_says_what_would_do(monkeypatch, module, limit):
    layers = [(1 + number % 7, number % 5, number % 3) for number in range(30)]
    model = CostModel(profile_of(layers), 4, PlanOptions())
    pareto_front(model)
    monkeypatch.setattr(module, limit, 20)
    with pytest.raises(InputError, match=r"any period: bound the period by --pareto-within"):
        pareto_front(model)
    with pytest.raises(InputError, match="by a smaller --pareto-within, or ask for fewer stages"):
        pareto_front(model, 5.0)
