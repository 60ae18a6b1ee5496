"""Planners that may cut at some places only, against all partitions that cut there and no other."""

from fractions import Fraction
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.errors import InputError
from hpc_lpm.planning.allowed_cuts import AllowedCuts
from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.search import search_devices
from hpc_lpm.planning.explain import explain_in_layers
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pareto.front import pareto_front
from hpc_lpm.planning.planners.registry import PLANNERS
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile, ProfiledEnd
from tests.unit.planner_instances import Instance, price

TIMES = st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0]) | st.floats(0, 1, allow_subnormal=False)


@st.composite
def restricted(draw):
    """Return an instance whose cuts are restricted, and the positions at which it may be cut."""
    ends = draw(st.lists(st.sampled_from(["Block", "Act"]), min_size=2, max_size=9))
    together = draw(st.lists(st.booleans(), min_size=len(ends), max_size=len(ends)))
    layers = tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=draw(TIMES),
            backward_seconds=draw(TIMES),
            output_bytes=draw(st.integers(0, 9)),
            parameter_bytes=draw(st.integers(0, 9)),
            activation_bytes=draw(st.integers(0, 9)),
            ends=(ProfiledEnd(path=f"part.{number}", type=end),),
            cut_after=not joined,
        )
        for number, (end, joined) in enumerate(zip(ends, together, strict=True))
    )
    by_pattern = draw(st.booleans()) and "Block" in ends
    allowed = [
        number
        for number in range(1, len(layers))
        if not together[number - 1] and (not by_pattern or ends[number - 1] == "Block")
    ]
    options = PlanOptions(
        tolerance=draw(st.sampled_from([0.0, 0.02, 0.5])),
        weights=draw(st.sampled_from(["replay", "live"])),
        memory_limit=draw(st.none() | st.integers(1, 400)),
        cut_only_at=("type:Block",) if by_pattern else (),
    )
    link = LinkProfile(
        latency_seconds=0.1, bandwidth_bytes_per_second=7.0, overlap=draw(st.booleans())
    )
    profile = Profile(
        model="random", micro_batch=1, device="cpu", dtype="float32", layers=layers, link=link
    )
    stages = draw(st.integers(1, len(allowed) + 1))
    return Instance(profile, stages, options), allowed


def partitions(instance, allowed):
    layers = len(instance.profile.layers)
    return [(0, *inner, layers) for inner in combinations(allowed, instance.stages - 1)]


def cuts_of(instance, planner):
    return make_plan(instance.profile, "0" * 64, instance.stages, planner, instance.options).cuts


@given(restricted())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_lpm_is_the_best_of_the_allowed_partitions(drawn):
    instance, allowed = drawn
    priced = [(price(instance, cuts), cuts) for cuts in partitions(instance, allowed)]
    feasible = [(*triple, cuts) for triple, cuts in priced if triple is not None]
    if not feasible:
        with pytest.raises(InputError, match="within the memory limits"):
            cuts_of(instance, "lpm")
        return
    longest = (1 + Fraction(instance.options.tolerance)) * min(entry[0] for entry in feasible)
    best = min(entry[1:] for entry in feasible if entry[0] <= longest)
    plan = make_plan(instance.profile, "0" * 64, instance.stages, "lpm", instance.options)
    assert plan.cuts == best[2]
    assert (plan.boundary_bytes, max(s.memory_bytes for s in plan.stages)) == best[:2]
    assert plan.period_seconds == float(price(instance, plan.cuts)[0])


@given(restricted())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_rival_planners_keep_their_promises_among_the_allowed_cuts(drawn):
    instance, allowed = drawn
    layers, stages = instance.profile.layers, instance.stages
    seconds = [Fraction(x.forward_seconds) + Fraction(x.backward_seconds) for x in layers]

    def held(cuts, values):
        return [sum(values[start:stop]) for start, stop in pairwise(cuts)]

    possible = partitions(instance, allowed)
    for planner in PLANNERS.names():
        if planner != "lpm":
            assert cuts_of(instance, planner) in possible
    sizes = [layer.parameter_bytes for layer in layers]
    fullest = min((max(held(c, sizes)), -min(held(c, sizes)), c) for c in possible)
    assert cuts_of(instance, "parameters") == fullest[2]
    slowest = max(held(cuts_of(instance, "pipedream"), seconds))
    assert slowest == min(max(held(cuts, seconds)) for cuts in possible)
    positions = [0, *allowed, len(layers)]
    greedy = held(cuts_of(instance, "greedy"), seconds)
    assert max(greedy) - min(greedy) <= max(held(positions, seconds))
    blocks, longer = divmod(len(positions) - 1, stages)
    uniform = [stage * blocks + min(stage, longer) for stage in range(stages + 1)]
    assert cuts_of(instance, "uniform") == tuple(positions[block] for block in uniform)


@given(restricted())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_front_is_that_of_the_allowed_partitions(drawn):
    instance, allowed = drawn
    triples = {price(instance, cuts) for cuts in partitions(instance, allowed)} - {None}
    if not triples:
        return
    front = {
        one
        for one in triples
        if not any(
            other != one and all(a <= b for a, b in zip(other, one, strict=True))
            for other in triples
        )
    }
    blocks = Blocks.of(instance.profile, instance.options.cut_only_at)
    found = pareto_front(CostModel(blocks.merged, instance.stages, instance.options))
    assert {(p.period, p.boundary_bytes, p.memory_bytes) for p in found.points} == front
    for point in found.points:
        cuts = blocks.in_layers(point.cuts)
        assert price(instance, cuts) == (point.period, point.boundary_bytes, point.memory_bytes)


@given(restricted())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_merging_changes_no_price(drawn):
    instance, allowed = drawn
    blocks = Blocks.of(instance.profile, instance.options.cut_only_at)
    merged = CostModel(blocks.merged, instance.stages, instance.options)
    for cuts in partitions(instance, allowed):
        assert merged.period(blocks.in_blocks(cuts)) == CostModel(
            instance.profile, instance.stages, instance.options
        ).period(cuts)
        assert blocks.in_layers(blocks.in_blocks(cuts)) == cuts


def chain(*names, seconds=1.0):
    layers = tuple(
        LayerProfile(
            name=name,
            forward_seconds=seconds,
            backward_seconds=seconds,
            output_bytes=1,
            parameter_bytes=1,
            activation_bytes=1,
        )
        for name in names
    )
    link = LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9)
    return Profile(
        model="chain", micro_batch=2, device="cpu", dtype="float32", layers=layers, link=link
    )


def test_an_explanation_counts_what_cannot_be_cut_apart_as_one_layer():
    profile = chain("a.0", "a.1", "a.2", "a.3", "b", "c")
    options = PlanOptions(weights="live", cut_only_at=("a", "b"))
    plan = make_plan(profile, "0" * 64, 3, options=options)
    assert plan.cuts == (0, 4, 5, 6)
    blocks = Blocks.of(profile, options.cut_only_at)
    told = explain_in_layers(CostModel(profile, 3, options), plan.cuts, blocks)
    # Without the restriction, no stage would have to take longer than two of the six layers.
    assert (told.coarsest_layer, told.coarsest_layer_bounds) == ("a.0..a.3", True)
    assert told.speedup_bound == pytest.approx(6 / 4)
    assert [(s.first_layer, s.last_layer) for s in told.stages] == [
        ("a.0", "a.3"),
        ("b", "b"),
        ("c", "c"),
    ]
    assert told.enough_stages == 2


def test_too_few_allowed_cuts_are_refused_with_the_stages_that_are_possible():
    profile = chain("a.0", "a.1", "b.0", "b.1", "c.0", "c.1")
    with pytest.raises(InputError, match=r"2 cuts of chain, enough for 3 stages: ask for at most"):
        make_plan(profile, "0" * 64, 4, options=PlanOptions(cut_only_at=("?",)))
    with pytest.raises(InputError, match=r"0 cuts of chain, enough for 1 stage:"):
        make_plan(profile, "0" * 64, 2, options=PlanOptions(cut_only_at=("c",)))
    # Where every cut is allowed, the number of layers is what counts.
    with pytest.raises(InputError, match="has 6 layers"):
        make_plan(profile, "0" * 64, 7, options=PlanOptions(cut_only_at=("**",)))


def test_layers_that_belong_together_are_never_cut_apart():
    profile = chain("a", "b", "c")
    joined = profile.layers[0].model_copy(update={"cut_after": False})
    profile = profile.model_copy(update={"layers": (joined, *profile.layers[1:])})
    for planner in PLANNERS.names():
        assert make_plan(profile, "0" * 64, 2, planner).cuts == (0, 2, 3)
    with pytest.raises(InputError, match="belong together leave 1 cut of chain, enough for 2"):
        make_plan(profile, "0" * 64, 3)
    with pytest.raises(InputError, match=r"\(position 1\), which belongs together with b"):
        AllowedCuts.of("chain", profile.layers).own([1])


def test_a_search_over_devices_keeps_to_the_allowed_cuts():
    profile = chain("a.0", "a.1", "a.2", "a.3", "b.0", "b.1")
    blocks = Blocks.of(profile, ["a"])
    found = search_devices([blocks.merged], 4, 8, PlanOptions(weights="live"))
    assert {candidate.stages for candidate in found.candidates} == {1, 2}
    assert all(
        blocks.in_layers(candidate.cuts) == (0, 4, 6)
        for candidate in found.candidates
        if candidate.stages == 2
    )


@pytest.mark.parametrize(
    ("waiting", "merged"), [((0.1, 0.2), Fraction(0.1) + Fraction(0.2)), ((0.1, None), None)]
)
def test_layers_that_are_merged_let_wait_what_they_let_wait_together(waiting, merged):
    layers = tuple(
        LayerProfile(
            name=f"layer{number}",
            forward_seconds=1,
            backward_seconds=1,
            weight_gradient_seconds=seconds,
            split_backward_seconds=None if seconds is None else 1 + seconds,
            output_bytes=1,
            parameter_bytes=1,
            activation_bytes=1,
            cut_after=number > 0,
        )
        for number, seconds in enumerate((*waiting, 0.5))
    )
    link = LinkProfile(latency_seconds=0.1, bandwidth_bytes_per_second=7.0)
    profile = Profile(
        model="two of three", micro_batch=1, device="cpu", dtype="float32", layers=layers, link=link
    )
    found = Blocks.of(profile).merged.layers
    assert [layer.weight_gradient_seconds for layer in found] == [merged, 0.5]
    both = None if merged is None else Fraction(1.1) + Fraction(1.2)
    assert [layer.split_backward_seconds for layer in found] == [both, 1.5]
