"""Options on lagged weights: what is refused, and the guess itself."""

from dataclasses import replace

import pytest
import torch
from hpc_lpm.engine.pipeline.lag_compensation import PredictedWeights
from torch import nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.engine.checks import check_run
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Tie
from hpc_lpm.models.registry import create_model

DIGITS = DataShape("image", (1, 8, 8), 10)
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
        ({"prediction": True, "optimizer": {"name": "adamw"}}, "adamw.*sgd and momentum"),
        (
            {"prediction": True, "optimizer": {"name": "momentum", "options": {"nesterov": True}}},
            "--prediction.*nesterov",
        ),
        ({"synchronous_tail": 3}, "--synchronous-tail 3.*2 epochs.*at most 2"),
    ],
)
def test_an_option_that_does_not_apply_is_refused_in_one_sentence(
    wrong: dict[str, object], named: str
) -> None:
    with pytest.raises(InputError, match=named) as caught:
        check(**wrong)
    assert "\n" not in str(caught.value)


def test_weights_of_two_stages_are_not_predicted() -> None:
    with pytest.raises(InputError, match=r"--prediction.*model mlp.*ties weights") as caught:
        check(prediction=True, tied=True)
    with pytest.raises(InputError, match="2 replicas of every stage"):
        check(prediction=True, replicas=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "right",
    [
        {"prediction": True},
        {"prediction": True, "optimizer": {"name": "sgd"}},
        {"synchronous_tail": 2},
    ],
)
def test_what_applies_is_accepted(right: dict[str, object]) -> None:
    check(**right)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_weights_are_predicted_by_one_step_and_come_back(momentum: float, in_place: bool) -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.25, momentum=momentum)
    weight.grad = torch.tensor([4.0, 0.0])
    optimizer.step()  # velocity (4, 0), weights (0, 2)
    memory, version = weight.data_ptr(), weight._version
    predicted = PredictedWeights(optimizer, in_place=in_place)
    weight.grad = torch.tensor([0.0, 1.0])  # of one quarter of a step: its mean is (0, 4)
    predicted.add_gradients(2, 8)
    with predicted.applied():
        assert weight.tolist() == [-0.25 * momentum * 4, 1.0]
        assert (weight.data_ptr() == memory) == in_place
    assert weight.tolist() == [0.0, 2.0]
    assert weight.data_ptr() == memory
    assert weight._version == version


def test_without_gradients_and_velocity_the_weights_predict_themselves() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([9.0])
    predicted = PredictedWeights(torch.optim.SGD([weight], lr=1.0, momentum=0.9), in_place=False)
    predicted.add_gradients(4, 8)
    predicted.clear_gradients()
    memory = weight.data_ptr()
    with predicted.applied():
        assert weight.data_ptr() == memory


def test_weights_come_back_after_a_fault() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([1.0])
    predicted = PredictedWeights(torch.optim.SGD([weight], lr=1.0), in_place=True)
    predicted.add_gradients(1, 1)
    with pytest.raises(ZeroDivisionError), predicted.applied():
        raise ZeroDivisionError
    assert weight.tolist() == [1.0]
