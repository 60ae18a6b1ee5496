"""Asynchronous rivals: what they are in the space of schedules, what they hold and refuse."""

from dataclasses import replace
from itertools import product

import pytest
from test_forecasts import case, forecasts, layer

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Tie
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.refusals import check_request
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.schedules.instructions import Backward, Forward, Update
from hpc_lpm.schedules.registry import schedule_named

DIGITS = DataShape("image", (1, 8, 8), 10)
NAMES = ["pipedream", "pipedream-2bw", "ddg", "fr", "fdg"]


def check(strategy: str, *, stages: int = 3, tied: bool = False, **changes: object) -> None:
    given = {"model": "mlp", "dataset": "digits", "epochs": 1, "strategy": strategy, **changes}
    settings = checked_settings(**given)
    model = create_model("mlp", DIGITS)
    if tied:
        model = replace(model, ties=(Tie(0, "weight", 1, "weight"),))
    check_run(PlannedRun(settings, model, stages, stages, steps=40, epochs=1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "given",
    [
        {"weights": "live"},
        {"lead": 3},
        {"recipe": "auto"},
        {"prediction": True},
        {"synchronous_tail": 1},
        {"lr_discount": True},
    ],
)
def test_what_would_make_another_method_of_a_rival_is_no_option_of_it(
    name: str, given: dict[str, object]
) -> None:
    option = "--" + next(iter(given)).replace("_", "-")
    with pytest.raises(InputError, match=f"{option} was given with --strategy {name}") as caught:
        check(name, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.5])
def test_a_factor_that_shrinks_nothing_or_everything_is_refused(factor: float) -> None:
    with pytest.raises(InputError, match=r"gradient.shrink"):
        check("fdg", gradient_shrink=factor)
    check("fdg", gradient_shrink=1.0)
    with pytest.raises(InputError, match="--gradient-shrink was given with --strategy ddg"):
        check("ddg", gradient_shrink=1.0)


def test_two_buffers_take_steps_as_long_as_the_pipeline_and_no_tied_weights() -> None:
    with pytest.raises(InputError, match=r"--micro-batches is 2 .*pipedream-2bw.* 3 stages.*use 3"):
        check("pipedream-2bw", micro_batches=2)
    with pytest.raises(InputError, match=r"pipedream-2bw.*model mlp.*ties weights") as caught:
        check("pipedream-2bw", tied=True)
    assert "\n" not in str(caught.value)
    check("pipedream-2bw", micro_batches=4)
    check("pipedream", micro_batches=2, tied=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_norm_over_all_stages_would_lock_a_rival(name: str) -> None:
    with pytest.raises(InputError, match=f"--clip-scope global.*{name}.*--clip-scope stage"):
        check(name, clip_norm=1.0, clip_scope="global")


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_an_iteration_of_ddg_is_a_slot_of_fbp_with_lead_1(stages: int) -> None:
    """At iteration t stage k runs F(t), B(t - (K-1-k)), update; what does not exist is left out."""
    steps = 9
    for stage in range(stages):
        slots = []
        for t in range(steps + stages):
            slots += [Forward(t)] if t < steps else []
            late = t - (stages - 1 - stage)
            slots += [Backward(late), Update(late)] if 0 <= late < steps else []
        assert list(schedule_named("fbp").compute(stage, stages, 1, steps, 1)) == slots


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_an_iteration_of_fdg_is_a_slot_of_fbp_with_lead_2(stages: int) -> None:
    """At iteration t stage k runs F(t - k), B(t - 2(K-1) + k), update."""
    steps = 12
    for stage in range(stages):
        slots = []
        for t in range(steps + 2 * stages):
            forward, late = t - stage, t - 2 * (stages - 1) + stage
            slots += [Forward(forward)] if 0 <= forward < steps else []
            slots += [Backward(late), Update(late)] if 0 <= late < steps else []
        assert list(schedule_named("fbp").compute(stage, stages, 1, steps, 2)) == slots


def memory(stages: int, **options: object) -> list[int]:
    """Bytes of each stage, which has parameters of 100 bytes and no activations."""
    layer = LayerProfile(
        name="layer",
        forward_seconds=1.0,
        backward_seconds=1.0,
        output_bytes=1,
        parameter_bytes=100,
        activation_bytes=0,
    )
    profile = Profile(
        model="by hand",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=(layer,) * stages,
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    )
    model = CostModel(profile, stages, PlanOptions.checked(optimizer="sgd", **options))
    return [model.memory_bytes(stage, stage, stage + 1) for stage in range(stages)]


def test_plans_count_the_versions_that_a_rival_keeps() -> None:
    def planned(name: str, **options: object) -> list[int]:
        settings = checked_settings(model="mlp", dataset="digits", epochs=1, strategy=name)
        wanted = strategy_named(name).plan_options(settings)
        return memory(3, **{"micro_batches": 1, **wanted, **options})

    # Weights and gradients; and the versions between the forward and the backward of a stage.
    assert planned("pipedream") == planned("ddg") == [400, 300, 200]
    assert planned("fr") == [200, 200, 200]
    assert planned("fdg") == [600, 400, 200]
    assert planned("pipedream", micro_batches=4) == [300, 300, 200]
    assert planned("pipedream-2bw", micro_batches=4) == [300, 300, 300]


def test_a_search_over_devices_leaves_two_buffers_out() -> None:
    options = PlanOptions(weights="double-buffer")
    with pytest.raises(InputError, match=r"--weights is double-buffer.*--stages"):
        check_request([], 4, 64, options)


def test_two_buffers_are_predicted_for_as_many_stages_as_they_are_enough_for() -> None:
    layers = tuple(layer(f"layer{number}", 1.0, 2.0) for number in range(8))
    two, four = forecasts("pipedream-2bw", case(layers=layers, devices=4, batch_size=16))
    assert [(each.stages, each.replicas) for each in (two, four)] == [(2, 2), (4, 1)]
    assert {(each.lag.mean, each.lag.largest) for each in (two, four)} == {(1, 1)}
    # Gradients and two versions of four layers, and the activations of two micro-batches.
    assert two.memory_bytes == 4 * (3 * 64 + 2 * 32)
    with pytest.raises(InputError, match="more versions of the weights in use than two"):
        forecasts("pipedream-2bw", case(layers=layers, devices=4, batch_size=8))


@pytest.mark.parametrize(("micro_batches", "lead"), list(product([1, 2, 3], [1, 2])))
def test_a_plan_for_two_buffers_refuses_what_needs_more(micro_batches: int, lead: int) -> None:
    options = {"weights": "double-buffer", "micro_batches": micro_batches, "lead": lead}
    if 2 * lead > micro_batches:
        with pytest.raises(InputError, match=r"double-buffer keeps one.*--weights stash"):
            memory(3, **options)
    else:
        assert memory(3, **options) == [300, 300, 300]
