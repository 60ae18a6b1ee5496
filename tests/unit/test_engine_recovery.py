"""Options on lagged weights: what is refused, and the guess itself."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.parameter_groups import ALL_ALIKE
from hpc_lpm.engine.pipeline.extrapolation import Extrapolation
from hpc_lpm.engine.pipeline.prediction import Prediction
from hpc_lpm.engine.pipeline.spectrain import SpecTrain
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.updating import Updates
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Tie
from hpc_lpm.models.registry import create_model
from hpc_lpm.prediction_rules import PredictionRule

DIGITS = DataShape("image", (1, 8, 8), 10)
BY_SPECTRAIN = {"prediction": True, "prediction_rule": "spectrain"}
GOOD = {"model": "mlp", "dataset": "digits", "strategy": "fbp", "epochs": 2}


def check(*, tied: bool = False, replicas: int = 1, **changes: object) -> None:
    settings = checked_settings(**{**GOOD, **changes})
    model = create_model("mlp", DIGITS)
    if tied:
        model = replace(model, ties=(Tie(0, "weight", 1, "weight"),))
    check_run(PlannedRun(settings, model, 2 * replicas, 2, steps=40, epochs=2))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"strategy": "1f1b", "prediction": True}, "--prediction.*--strategy 1f1b.*fbp"),
        ({"strategy": "gpipe", "synchronous_tail": 1}, "--synchronous-tail.*gpipe"),
        ({**BY_SPECTRAIN, "optimizer": {"name": "adamw"}}, "adamw.*sgd and momentum"),
        (
            {"prediction": True, "optimizer": {"name": "momentum", "options": {"nesterov": True}}},
            "--prediction.*spectrain.*nesterov.*second-order",
        ),
        ({"prediction_rule": "second-order"}, "prediction rule is second-order without prediction"),
        ({"synchronous_tail": 3}, "--synchronous-tail 3.*2 epochs.*at most 2"),
    ],
)
def test_an_option_that_does_not_apply_is_refused_in_one_sentence(
    wrong: dict[str, object], named: str
) -> None:
    with pytest.raises(InputError, match=named) as caught:
        check(**wrong)
    assert "\n" not in str(caught.value)


def test_spectrain_does_not_predict_weights_of_two_stages_and_others_do() -> None:
    with pytest.raises(InputError, match=r"--prediction.*model mlp.*ties weights") as caught:
        check(prediction=True, tied=True)
    with pytest.raises(InputError, match="2 replicas of every stage"):
        check(prediction=True, replicas=2)
    assert "\n" not in str(caught.value)
    check(prediction=True, prediction_rule="last-update", tied=True, replicas=2)


@pytest.mark.parametrize(
    "right",
    [
        {"prediction": True},
        {"prediction": True, "optimizer": {"name": "sgd"}},
        {"prediction": True, "optimizer": {"name": "adamw"}},
        {"synchronous_tail": 2},
    ],
)
def test_what_applies_is_accepted(right: dict[str, object]) -> None:
    check(**right)


def momentum_of(weight: nn.Parameter, lr: float, momentum: float) -> Updates:
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=momentum)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    return Updates(optimizer, constant, ALL_ALIKE)


def step(predicted: Prediction, weight: nn.Parameter, change: list[float]) -> None:
    """Update the weight by a change at the rate 1."""
    with predicted.update(skipped=False), torch.no_grad():
        weight.sub_(torch.tensor(change))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_spectrain_predicts_by_one_step_and_the_weights_come_back(
    momentum: float, in_place: bool
) -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    updates = momentum_of(weight, 0.25, momentum)
    weight.grad = torch.tensor([4.0, 0.0])
    updates.optimizer.step()  # velocity (4, 0), weights (0, 2)
    memory, version = weight.data_ptr(), weight._version
    predicted = SpecTrain(updates, in_place=in_place, skips=False)
    weight.grad = torch.tensor([0.0, 1.0])  # of one quarter of a step: its mean is (0, 4)
    predicted.add_gradients(2, 8)
    with predicted.applied(1):
        assert weight.tolist() == [-0.25 * momentum * 4, 1.0]
        assert (weight.data_ptr() == memory) == in_place
    assert weight.tolist() == [0.0, 2.0]
    assert weight.data_ptr() == memory
    assert weight._version == version


def test_without_gradients_and_velocity_the_weights_predict_themselves() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([9.0])
    predicted = SpecTrain(momentum_of(weight, 1.0, 0.9), in_place=False, skips=False)
    predicted.add_gradients(4, 8)
    with predicted.update(skipped=True):
        pass
    memory = weight.data_ptr()
    with predicted.applied(2):
        assert weight.data_ptr() == memory


def test_weights_come_back_after_a_fault() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([1.0])
    predicted = SpecTrain(momentum_of(weight, 1.0, 0.0), in_place=True, skips=False)
    predicted.add_gradients(1, 1)
    with pytest.raises(ZeroDivisionError), predicted.applied(1):
        raise ZeroDivisionError
    assert weight.tolist() == [1.0]


def extrapolation(
    rule: PredictionRule, weight: nn.Parameter, lr: float = 1.0, **more: object
) -> Extrapolation:
    copied = {0: [weight]} if more.pop("is_copy", False) else {}
    own = nn.Parameter(torch.zeros(1)) if copied else weight
    updates = momentum_of(own, lr, 0.0)
    return Extrapolation(rule, updates, [weight], copied, in_place=True)


@pytest.mark.parametrize("rule", ["last-update", "second-order"])
def test_the_last_updates_go_on_for_as_many_updates_as_a_pass_is_ahead(
    rule: PredictionRule,
) -> None:
    weight = nn.Parameter(torch.tensor([10.0]))
    predicted = extrapolation(rule, weight)
    assert not predicted.is_ahead(1)
    step(predicted, weight, [2.0])
    step(predicted, weight, [1.0])  # weights 7, directions 1 and 2
    assert not predicted.is_ahead(2)
    with predicted.applied(3):
        # 7 - 1, and 7 - 2 + 2 by the second order
        assert weight.item() == {"last-update": 6.0, "second-order": 7.0}[rule]
    with predicted.applied(4):
        # 7 - 2, and 7 - 5 + 3 * 2 by the second order
        assert weight.item() == {"last-update": 5.0, "second-order": 8.0}[rule]
    assert weight.item() == 7.0
    predicted.begin()
    with predicted.applied(1):
        assert weight.item() == {"last-update": 6.0, "second-order": 7.0}[rule]


def test_directions_of_one_update_are_all_there_is_after_one_that_was_skipped() -> None:
    weight = nn.Parameter(torch.tensor([10.0]))
    predicted = extrapolation("second-order", weight)
    step(predicted, weight, [2.0])
    with predicted.update(skipped=True):
        pass
    assert not predicted.is_ahead(5)
    step(predicted, weight, [1.0])
    with predicted.applied(4):
        assert weight.item() == 6.0


def test_an_update_at_a_rate_of_0_tells_nothing_of_the_next_one() -> None:
    weight = nn.Parameter(torch.tensor([10.0]))
    predicted = extrapolation("second-order", weight, lr=0.0)
    step(predicted, weight, [0.0])
    assert not predicted.is_ahead(3)


def test_copies_that_their_owner_leaves_as_they_are_tell_nothing_of_the_next_update() -> None:
    weight = nn.Parameter(torch.tensor([10.0]))
    predicted = extrapolation("second-order", weight, is_copy=True)
    for change in (2.0, 0.0):
        with predicted.update(skipped=False):
            pass
        with predicted.update_from(0), torch.no_grad():
            weight.sub_(change)
        assert predicted.is_ahead(3) == bool(change)


def test_copies_are_predicted_at_the_rate_of_the_update_that_comes_to_them_next() -> None:
    weight, own = nn.Parameter(torch.tensor([10.0])), nn.Parameter(torch.zeros(1))
    updates = momentum_of(own, 1.0, 0.0)
    predicted = Extrapolation("last-update", updates, [own, weight], {0: [weight]}, in_place=True)
    for rate in (1.0, 0.5, 0.25):
        updates.optimizer.param_groups[0]["lr"] = rate
        with predicted.update(skipped=False):
            pass
    with predicted.update_from(0), torch.no_grad():
        weight.sub_(2.0)
    with predicted.applied(3):
        assert weight.item() == 8.0 - 0.5 * 2 * 2.0


def test_directions_are_saved_and_restored_by_parameter() -> None:
    weight = nn.Parameter(torch.tensor([10.0]))
    predicted, other = (extrapolation("second-order", weight) for _ in range(2))
    step(predicted, weight, [2.0])
    step(predicted, weight, [1.0])
    other.restore(predicted.saved())
    with other.applied(1):
        assert weight.item() == 7.0
    fresh = extrapolation("second-order", weight)
    fresh.restore({})
    assert not fresh.is_ahead(1)


def test_parameters_that_are_predicted_together_do_without_what_one_of_them_lacks() -> None:
    weight, fresh = (nn.Parameter(torch.tensor([10.0])) for _ in range(2))
    trained = extrapolation("second-order", weight)
    step(trained, weight, [2.0])
    step(trained, weight, [1.0])
    updates = momentum_of(weight, 1.0, 0.0)
    updates.optimizer.param_groups[0]["params"].append(fresh)
    # As after a cut that has brought them together, or once a layer learns that did not before.
    both = Extrapolation("second-order", updates, [weight, fresh], {}, in_place=True)
    both.restore(trained.saved())
    assert not both.is_ahead(1)
    assert both.saved() == {}
    with both.update(skipped=False), torch.no_grad():
        weight.sub_(2.0)
        fresh.sub_(1.0)
    with both.applied(2):
        assert (weight.item(), fresh.item()) == (3.0, 8.0)
    assert (weight.item(), fresh.item()) == (5.0, 9.0)
