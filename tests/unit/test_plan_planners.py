"""The rival planners, the registry, memory limits and size."""

import time
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.registry import PLANNERS, planner_named
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def profile_of(sizes, seconds=None):
    """Build a profile from the parameter bytes, and optionally the seconds, of its layers."""
    seconds = seconds or [1.0] * len(sizes)
    return Profile(
        model="sized",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=time,
                backward_seconds=time,
                output_bytes=size % 7,
                parameter_bytes=size,
                activation_bytes=size // 2,
            )
            for number, (size, time) in enumerate(zip(sizes, seconds, strict=True))
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    )


def cuts_of(planner, sizes, stages, **options):
    return make_plan(profile_of(sizes), "0" * 64, stages, planner, PlanOptions(**options)).cuts


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (10, 3, (0, 4, 7, 10)),
        (11, 3, (0, 4, 8, 11)),
        (12, 3, (0, 4, 8, 12)),
        (3, 3, (0, 1, 2, 3)),
        (5, 1, (0, 5)),
    ],
)
def test_uniform_gives_the_first_stages_the_layers_left_over(layers, stages, expected):
    assert cuts_of("uniform", [1] * layers, stages) == expected


@given(st.lists(st.integers(0, 9) | st.just(2**65), min_size=1, max_size=9), st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_parameters_has_the_least_largest_then_the_fullest_smallest_stage(sizes, data):
    stages = data.draw(st.integers(1, len(sizes)))

    def merit(inner):
        cuts = (0, *inner, len(sizes))
        held = [sum(sizes[start:stop]) for start, stop in pairwise(cuts)]
        return max(held), -min(held), cuts

    best = min(merit(inner) for inner in combinations(range(1, len(sizes)), stages - 1))
    assert cuts_of("parameters", sizes, stages) == best[2]


@pytest.mark.parametrize("planner", PLANNERS.names())
@pytest.mark.parametrize("stages", [1, 2, 5, 6])
def test_every_planner_covers_every_layer_once(planner, stages):
    cuts = cuts_of(planner, [5, 0, 0, 9, 1, 3], stages)
    assert len(cuts) == stages + 1
    assert (cuts[0], cuts[-1]) == (0, 6)
    assert list(cuts) == sorted(set(cuts))


def test_plan_names_model_profile_and_options():
    plan = make_plan(profile_of([1, 2]), "ab" * 32, 2, "uniform", PlanOptions(lead=2))
    assert (plan.planner, plan.model, plan.profile_sha256) == ("uniform", "sized", "ab" * 32)
    assert plan.options["lead"] == 2
    assert plan.options["overlap"] is True


def test_unknown_planner_is_bad_input_with_a_hint():
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        planner_named("unifrm")


def test_no_rival_has_a_shorter_period_than_lpm():
    profile = profile_of([3, 1, 4, 1, 5, 9, 2, 6], [0.3, 0.1, 0.9, 0.2, 0.2, 0.7, 0.4, 0.4])
    for stages in range(1, 9):
        periods = {
            name: make_plan(profile, "0" * 64, stages, name).period_seconds
            for name in PLANNERS.names()
        }
        options = PlanOptions(tolerance=0)
        exact = make_plan(profile, "0" * 64, stages, "lpm", options).period_seconds
        assert exact <= min(periods.values())
        assert periods["lpm"] <= 1.02 * exact * (1 + 1e-12)


def test_tolerance_buys_fewer_boundary_bytes():
    layers = [
        LayerProfile(
            name=str(number),
            forward_seconds=seconds,
            backward_seconds=0,
            output_bytes=output,
            parameter_bytes=0,
            activation_bytes=0,
        )
        for number, (seconds, output) in enumerate([(10, 5), (10, 900), (1, 7), (10, 1), (9, 0)])
    ]
    profile = profile_of([0]).model_copy(update={"layers": tuple(layers)})

    def plan(tolerance):
        options = PlanOptions(tolerance=tolerance, weights="live")
        return make_plan(profile, "0" * 64, 2, "lpm", options)

    assert (plan(0.0).cuts, plan(0.0).boundary_bytes) == ((0, 2, 5), 900)
    assert (plan(0.05).cuts, plan(0.05).boundary_bytes) == ((0, 3, 5), 7)
    assert (plan(0.55).cuts, plan(0.55).boundary_bytes) == ((0, 4, 5), 1)


def test_infeasible_plan_names_stage_bytes_limit_and_what_would_do():
    # SGD, live: 2 x parameters + (d + 1) x half of them. In two stages 100 | 100, 100 holds least:
    # 200 + 2 * 50 and 400 + 100; in three stages 350, 300 and 250.
    with pytest.raises(InputError) as caught:
        cuts_of("lpm", [100] * 3, 2, optimizer="sgd", weights="live", memory_limit=360)
    message = str(caught.value)
    assert "stage 1 (layers layer1 to layer2) needs 500 bytes and its limit is 360" in message
    assert "a memory limit of 500 bytes would do, so would 3 stages" in message


def test_limit_that_was_proposed_does():
    options = {"optimizer": "sgd", "weights": "live"}
    assert cuts_of("lpm", [100] * 3, 2, memory_limit=500, **options) == (0, 1, 3)
    assert cuts_of("lpm", [100] * 3, 3, memory_limit=360, **options) == (0, 1, 2, 3)


def test_no_number_of_stages_is_proposed_where_none_would_do():
    with pytest.raises(InputError, match=r"bytes would do\.$"):
        cuts_of("lpm", [100] * 3, 2, memory_limit=10)


def test_memory_limit_moves_the_cut():
    sizes = [8, 8, 8, 2, 2, 2]
    free = cuts_of("lpm", sizes, 2, weights="live")
    assert free == (0, 3, 6)
    plan = make_plan(
        profile_of(sizes), "0" * 64, 2, "lpm", PlanOptions(weights="live", memory_limit=(80, 200))
    )
    assert plan.cuts == (0, 2, 6)
    assert plan.stages[0].memory_bytes <= 80


@pytest.mark.parametrize("overlap", [True, False])
def test_large_networks_are_planned_in_seconds(overlap):
    layers, stages = (4000, 256) if overlap else (1000, 32)
    seconds = [(number * 7919 % 1009) / 1e6 + 1e-4 for number in range(layers)]
    profile = profile_of([number * 104729 % 9973 for number in range(layers)], seconds)
    began = time.process_time()
    options = PlanOptions(weights="live", overlap=overlap)
    plan = make_plan(profile, "0" * 64, stages, "lpm", options)
    assert time.process_time() - began < 30
    model = CostModel(profile, stages, options)
    least = sum(2 * value for value in seconds) / stages
    assert least <= plan.period_seconds < 1.3 * least
    assert float(model.period(plan.cuts)) == plan.period_seconds
