"""Losses and metrics: those of the data's task, those by name, and those of the user's own."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.engine.evaluation import MicroBatchScores, combined
from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import evaluation_metrics_named
from hpc_lpm.models.layered import Layer, LayeredModel
from hpc_lpm.models.losses import loss_named
from hpc_lpm.models.objective import with_objective

CHAIN = LayeredModel("chain", (Layer("all", nn.Identity),))
IMAGE = ("image", (4,))

OWN = """
import torch
from torch import nn
def several(outputs, targets):
    return (outputs - targets) ** 2
def number(outputs, targets):
    return 1.0
def scaled(outputs, targets, scale: float = 1.0):
    return scale * (outputs - targets).abs().mean()
def failing(outputs, targets):
    raise KeyError("boxes")
def lone(outputs, targets):
    return outputs.sum()
def accuracy(outputs, targets):
    return 1, 2
class Learning(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.ones(2))
    def forward(self, outputs, targets):
        return (self.weights * (outputs - targets)).mean()
NUMBER = 3
"""


@pytest.fixture(autouse=True)
def own_objectives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_objectives.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("shape", "metrics"),
    [
        (DataShape(*IMAGE, 3), ["accuracy"]),
        (DataShape("text", (4,), 7), ["accuracy", "perplexity"]),
        (DataShape(*IMAGE, 3, "multi-label"), ["label_accuracy"]),
        (DataShape(*IMAGE, 1, "regression"), ["rmse", "mae"]),
    ],
)
def test_the_task_of_the_data_decides_loss_and_metrics(
    shape: DataShape, metrics: list[str]
) -> None:
    model = with_objective(CHAIN, shape)
    assert [metric.name for metric in model.evaluation_metrics] == metrics
    outputs = torch.randn(5, shape.classes)
    expected = {
        "accuracy": lambda: nn.functional.cross_entropy(outputs, torch.arange(5) % shape.classes),
        "label_accuracy": lambda: nn.functional.binary_cross_entropy_with_logits(
            outputs, torch.ones(5, shape.classes)
        ),
        "rmse": lambda: outputs[:, 0].sub(2.0).square().mean(),
    }[metrics[0]]()
    targets = {
        "accuracy": torch.arange(5) % shape.classes,
        "label_accuracy": torch.ones(5, shape.classes),
        "rmse": torch.full((5,), 2.0),
    }[metrics[0]]
    assert torch.allclose(model.loss(outputs, targets), expected)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mse", nn.MSELoss()),
        ("mae", nn.L1Loss()),
        ("huber,delta=0.25", nn.HuberLoss(delta=0.25)),
        ("torch.nn:SmoothL1Loss,beta=0.5", nn.SmoothL1Loss(beta=0.5)),
        ("torch.nn.functional:mse_loss", nn.MSELoss()),
        ("own_objectives:scaled,scale=3", lambda a, b: 3 * nn.L1Loss()(a, b)),
    ],
)
def test_a_loss_by_name_is_the_one_of_torch(name: str, reference: nn.Module) -> None:
    outputs, targets = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.equal(loss_named(name)(outputs, targets), reference(outputs, targets))


def test_what_a_loss_holds_is_where_the_outputs_are() -> None:
    elsewhere = torch.zeros(3, 2, device="meta")
    assert loss_named("own_objectives:Weighted")(elsewhere, elsewhere).device.type == "meta"


def test_one_number_a_sample_is_never_spread_over_all_targets() -> None:
    outputs, targets = torch.randn(6, 1), torch.randn(6)
    loss = loss_named("mse")
    assert torch.equal(loss(outputs, targets), (outputs[:, 0] - targets).square().mean())
    with pytest.raises(ValueError, match=r"returned \[6, 2\] for targets \[6\]"):
        loss(torch.randn(6, 2), targets)


def test_classes_may_stand_behind_the_samples_as_torch_has_them() -> None:
    outputs, targets = torch.randn(2, 5, 3, 3), torch.randint(0, 5, (2, 3, 3))
    model = with_objective(CHAIN, DataShape("image", (1, 3, 3), 5))
    assert torch.allclose(
        model.loss(outputs, targets), nn.functional.cross_entropy(outputs, targets)
    )
    [accuracy] = model.evaluation_metrics
    found, count = accuracy.of_micro_batch(outputs, targets)
    assert found / count == float((outputs.argmax(1) == targets).double().mean())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mze", "loss 'mze' is unknown, did you mean 'mse'"),
        (
            "huber,delta=wide",
            "option 'delta' of 'huber,delta=wide' is 'wide', accepted is a number",
        ),
        ("mse,delta=1", "unknown option 'delta'"),
        ("own_objectives:NUMBER", "is not callable but of type int"),
        ("own_objectives:Learning", "has parameters, which no stage would train"),
        ("own_objectives:Learning,size=3", "cannot be made, TypeError.*size"),
        ("torch.nn:MSELoss,reduction=sum", "has reduction='sum', accepted is a loss that returns"),
        ("torch.nn:MSELoss,reduction=none", "has reduction='none', accepted is a loss that"),
        ("own_objectives:several", r"returned \[3, 2\], accepted is a tensor of one number"),
        ("own_objectives:number", "returned float, accepted is a tensor of one number"),
        ("own_objectives:failing", "raises KeyError: 'boxes' .*own_objectives.py, line"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_in_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        loss_named(name)(torch.zeros(3, 2), torch.ones(3, 2))


def test_a_metric_returns_a_sum_and_a_count() -> None:
    [lone] = evaluation_metrics_named(["own_objectives:lone"])
    with pytest.raises(InputError, match=r"metric 'lone' returned a tensor .*accepted are two num"):
        lone.of_micro_batch(torch.ones(3), torch.ones(3))


def test_two_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="two metrics the name 'accuracy'"):
        with_objective(CHAIN, DataShape(*IMAGE, 3), metrics=["own_objectives:accuracy"])


def test_targets_without_a_usual_loss_need_one_of_the_users_own() -> None:
    shape = DataShape("other", (), 1, "own")
    with pytest.raises(InputError, match="give one of your own with --loss"):
        with_objective(CHAIN, shape)
    assert with_objective(CHAIN, shape, "own_objectives:scaled").evaluation_metrics[1:] == ()


def test_an_evaluation_weighs_samples_whatever_the_order_of_its_micro_batches() -> None:
    metrics = evaluation_metrics_named(["mae", "perplexity"])
    scores = [
        MicroBatchScores(1, 1, 4.0, ((5.0, 1.0), (0.0, 0.0))),
        MicroBatchScores(0, 3, 0.1, ((0.3, 3.0), (0.0, 0.0))),
    ]
    loss, values, count = combined(scores, metrics)
    assert loss == pytest.approx((4.0 + 3 * 0.1) / 4)
    assert values == {"mae": pytest.approx(5.3 / 4), "perplexity": pytest.approx(math.exp(loss))}
    assert count == 4
    assert combined(reversed(scores), metrics) == (loss, values, count)
    assert combined([MicroBatchScores(0, 1, math.nan, ((1.0, 0.0), (0, 0)))], metrics) == (
        None,
        {"mae": None, "perplexity": None},
        0,
    )
