"""Plans whose devices hold several stages: what they place, price and refuse."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

import hpc_lpm
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import placement_of
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.planning.chunks import evened_out
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.disturbances import Disturbances
from hpc_lpm.planning.explain import not_covered
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.prediction import clock_of, predict
from hpc_lpm.planning.repricing import plan_for
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.schedules.instructions import Backward, BackwardWeights, Forward
from hpc_lpm.schedules.registry import SCHEDULES

PLACED = [name for name, schedule in SCHEDULES.items() if schedule.chunks > 1]
ACTIVATIONS = 1000


def profile_of(seconds: list[float], weights: float | None = 0.5) -> Profile:
    """Layers of a forward of these seconds and a backward of twice as many."""
    return Profile(
        model="uneven",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=forward,
                backward_seconds=2 * forward,
                output_bytes=100 + number,
                parameter_bytes=8,
                activation_bytes=ACTIVATIONS + number,
                weight_gradient_seconds=None if weights is None else weights * 2 * forward,
            )
            for number, forward in enumerate(seconds)
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e12),
    )


def model_of(profile: Profile, name: str, devices: int, **options: object) -> CostModel:
    asked = PlanOptions(schedule=name, **options)
    return CostModel(profile, asked.stages_on(devices), asked)


def test_a_plan_says_for_how_many_devices_it_is_and_what_each_takes() -> None:
    plan = hpc_lpm.plan(profile_of([1, 1, 1, 1, 1, 1, 1, 1]), stages=2, schedule="zb-v")
    assert (plan.chunks, plan.devices, plan.cuts) == (2, 2, (0, 2, 4, 6, 8))
    # Four layers of three seconds each on a device.
    assert plan.period_seconds == 12
    assert Plan.from_document(json.loads(plan.text()), "plan").devices == 2


def test_devices_are_evened_out_where_stages_cannot_be() -> None:
    # Six seconds of forwards on the first device, which has both ends, and two on the other.
    model = model_of(profile_of([3, 1, 1, 1, 1, 1]), "zb-v", 2)
    assert model.device_seconds((0, 1, 2, 3, 6)) == [18, 6]
    better = evened_out(model, (0, 1, 2, 3, 6))
    assert better == (0, 1, 3, 5, 6)
    assert model.device_seconds(better) == [12, 12]
    assert evened_out(model_of(profile_of([1.0] * 6), "1f1b", 3), (0, 1, 3, 6)) == (0, 1, 3, 6)


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize("micro_batches", [1, 3, 6])
def test_a_device_is_said_to_hold_what_it_holds_when_its_programme_runs(
    name: str, micro_batches: int
) -> None:
    profile = profile_of([1.0] * 7)
    model = model_of(profile, name, 3, micro_batches=micro_batches, optimizer="sgd")
    cuts = (0, 1, 2, 3, 4, 5, 7)
    activations = [sum(ACTIVATIONS + n for n in range(*pair)) for pair in pairwise(cuts)]
    programmes = model.schedule.programmes(6, micro_batches, 2 * micro_batches)
    for device, programme in enumerate(programmes):
        held = most = 0
        stages = model.placement.held[device]
        for item in programme:
            if isinstance(item, Forward):
                held += activations[stages[item.chunk]]
            elif isinstance(item, Backward | BackwardWeights):
                held -= activations[stages[item.chunk]]
            most = max(most, held)
        layers = sum(cuts[stage + 1] - cuts[stage] for stage in stages)
        # Weights and gradients, of 8 bytes a layer, beside it.
        assert model.device_memory_bytes(cuts)[device] == most + 2 * 8 * layers


def test_all_of_the_first_stage_and_what_the_profile_tells_of_others_can_wait() -> None:
    model = model_of(profile_of([1, 1, 1, 1], weights=0.25), "zb-h1", 4)
    clock = clock_of(model, (0, 1, 2, 3, 4))
    assert list(clock.halves_seconds) == [(0, 2), *[(1.5, 0.5)] * 3]
    unknown = model_of(profile_of([1, 1, 1, 1], weights=None), "zb-h1", 4)
    assert list(clock_of(unknown, (0, 1, 2, 3, 4)).halves_seconds) == [(0, 2), *[(2, 0)] * 3]


def test_what_it_costs_to_part_the_halves_is_spent_by_schedules_that_do_and_not_on_stage_0() -> (
    None
):
    layers = [
        layer.model_copy(update={"split_backward_seconds": 3.0})
        for layer in profile_of([1, 1, 1, 1], weights=0.25).layers
    ]
    profile = profile_of([1, 1, 1, 1], weights=0.25).model_copy(update={"layers": tuple(layers)})
    clock = clock_of(model_of(profile, "zb-h1", 4), (0, 1, 2, 3, 4))
    # A quarter of both halves, as of the whole pass of 2 s, can wait.
    assert list(clock.halves_seconds) == [(0, 2), *[(2.25, 0.75)] * 3]
    assert list(clock.backward_seconds) == [2, 2, 2, 2]
    slowed = Disturbances(slow_stages={1: 2.0}).slowed(clock)
    assert list(slowed.halves_seconds) == [(0, 2), (4.5, 1.5), *[(2.25, 0.75)] * 2]


def test_a_plan_says_that_its_period_leaves_out_what_it_costs_to_part_the_halves() -> None:
    whole = profile_of([1, 1, 1, 1], weights=0.25)
    layers = [each.model_copy(update={"split_backward_seconds": 3.0}) for each in whole.layers]
    parted = whole.model_copy(update={"layers": tuple(layers)})
    for profile, name, count in ((parted, "zb-h1", 2), (whole, "zb-h1", 1), (parted, "1f1b", 1)):
        sentences = not_covered(model_of(profile, name, 4))
        assert len(sentences) == count
        assert any("halves of backwards apart" in each for each in sentences) == (count == 2)


def test_what_splits_backwards_is_predicted_to_be_faster_than_what_does_not() -> None:
    profile = profile_of([1.0] * 8)
    rates = {}
    for name in ("1f1b", "interleaved-1f1b", "zb-h1", "zb-v"):
        options = PlanOptions(schedule=name, micro_batches=8)
        plan = hpc_lpm.plan(profile, stages=4, schedule=name, micro_batches=8)
        rates[name] = predict(profile, plan, options).samples_per_second
    # 8 micro-batches of 6 s on each of 4 devices, and bubbles of 18, 9, less and hardly any.
    assert rates["1f1b"] == pytest.approx(8 / (48 + 18))
    assert rates["interleaved-1f1b"] == pytest.approx(8 / (48 + 9))
    assert rates["1f1b"] < rates["zb-h1"] < rates["zb-v"] <= 8 / 48
    assert rates["interleaved-1f1b"] < rates["zb-v"]


@pytest.mark.parametrize("name", PLACED)
@pytest.mark.parametrize("overlap", [True, False])
def test_one_device_alone_is_planned_and_simulated(name: str, overlap: bool) -> None:
    profile = profile_of([1.0] * 4)
    plan = hpc_lpm.plan(profile, stages=1, schedule=name, overlap=overlap)
    assert (plan.devices, plan.chunks, plan.period_seconds) == (1, 2, 12)
    options = PlanOptions(schedule=name, overlap=overlap)
    assert predict(profile, plan, options).samples_per_second == pytest.approx(1 / 12)


def test_speeds_limits_and_links_are_those_of_devices() -> None:
    profile = profile_of([1.0] * 8)
    model = model_of(profile, "zb-v", 2, speeds=(1.0, 2.0))
    assert model.device_seconds((0, 2, 4, 6, 8)) == [12, 6]
    with pytest.raises(InputError, match="speeds has 4 entries for 2 stages"):
        model_of(profile, "zb-v", 2, speeds=(1.0,) * 4)
    with pytest.raises(InputError, match=r"share of the limit, one of 2, is 1,000; .*would do"):
        hpc_lpm.plan(profile, stages=2, schedule="zb-v", memory_limit=2000)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"stages": 5, "schedule": "zb-v"}, "--stages is 5 with 2 chunks on each device"),
        ({"stages": 2, "schedule": "zb-v", "chunks": 3}, "each device holds 2: leave"),
        ({"stages": 2, "schedule": "1f1b", "chunks": 2}, "each device holds 1: leave"),
        ({"stages": 2, "schedule": "interleaved-1f1b", "chunks": 0}, "at least 1 is accepted"),
        ({"schedule": "zb-v", "cuts": "2,4"}, "there are 3 stages, but under schedule"),
        ({"schedule": "zb-v", "cuts": "2,4,6", "stages": 4}, "makes 2 stages"),
    ],
)
def test_what_does_not_go_with_chunks_is_refused(asked: dict, said: str) -> None:
    with pytest.raises(InputError) as raised:
        hpc_lpm.plan(profile_of([1.0] * 8), **asked)
    assert said.replace("--", "") in str(raised.value).replace("--", "")


def test_a_plan_is_used_by_strategies_that_place_as_many_stages(tmp_path: Path) -> None:
    plan = hpc_lpm.plan(profile_of([1.0] * 8), stages=2, schedule="zb-v")
    settings = checked_settings(model="mlp", dataset="digits", strategy="fbp", steps=1)
    assert placement_of(strategy_named("dualpipe-v"), settings, plan).held == ((0, 3), (1, 2))
    with pytest.raises(InputError, match=r"4 stages for 2 devices, 2 on each, but --strategy fbp"):
        placement_of(strategy_named("fbp"), settings, plan)
    with pytest.raises(InputError, match="schedule 1f1b places 1 there: make a plan with"):
        plan_for(plan, tmp_path / "plan.json", schedule="1f1b")


@pytest.mark.parametrize("one_for_each", [False, True])
def test_all_stages_of_a_device_together_keep_its_memory_limit_in_another_use(
    one_for_each: bool, tmp_path: Path
) -> None:
    profile, where = profile_of([1.0] * 8), tmp_path / "plan.json"
    given = {"stages": 2, "schedule": "zb-v"}
    fullest = max(stage.memory_bytes for stage in hpc_lpm.plan(profile, **given).stages)
    limit = 2 * fullest
    limits = (limit, limit) if one_for_each else limit
    plan = hpc_lpm.plan(profile, **given, memory_limit=limits)
    lighter = plan_for(plan, where, optimizer="sgd").memory_bytes
    assert lighter is not None
    assert max(lighter) < fullest
    # No stage alone needs more than the limit then, but the two of the first device do.
    with pytest.raises(InputError, match=f"bytes on device 0 for .* limit of {limit:,} bytes"):
        plan_for(plan, where, micro_batch=2)
