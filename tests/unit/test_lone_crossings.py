"""Engines that take one tensor alone are advised cuts over which one crosses, and train there."""

import math
import sys
import types
from types import SimpleNamespace

import pytest
import torch
from test_forecasts import case, layer
from torch import nn

from hpc_lpm.advice.campaign_file import write_campaign
from hpc_lpm.advice.ranking import rank
from hpc_lpm.advice.subject import Subject
from hpc_lpm.campaign.validation import read_checked_campaign
from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.lone_crossings import crossings
from hpc_lpm.engine.pipeline.boundary import Boundary, StageBoundaries
from hpc_lpm.engine.runners.crossing import Crossing, is_history_seen
from hpc_lpm.engine.strategies.registry import STRATEGIES, strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import Layer, LayeredModel
from hpc_lpm.models.registry import create_model, example_input

HOST = torch.device("cpu")


class Block(nn.Module):
    """A layer whose input is added to what comes out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.GELU())

    def forward(self, inputs):
        return inputs + self.inner(inputs)


class Residual(nn.Module):
    """Blocks with residual connections, over which two tensors cross inside of a block."""

    def __init__(self, pixels: int, width: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.into = nn.Linear(pixels, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.out = nn.Linear(width, classes)

    def forward(self, images):
        return self.out(self.blocks(self.into(images.flatten(1))))


def residual(shape, blocks: int = 4):
    return Residual(math.prod(shape.input_shape), 8, blocks, shape.classes)


@pytest.fixture(autouse=True)
def module(monkeypatch):
    found = types.ModuleType("residual_models")
    found.residual = residual
    monkeypatch.setitem(sys.modules, "residual_models", found)


def subject(model: str) -> Subject:
    shared = {
        "model": model,
        "dataset": "digits",
        "batch_size": 16,
        "optimizer": {"name": "momentum", "lr": 0.05},
    }
    return Subject(create_model(model, dataset_shape("digits")), shared)


def case_of(about: Subject, devices: int = 2):
    names = [each.name for each in about.model.layers]
    layers = tuple(layer(name, 1.0, 2.0, output=1) for name in names)
    return case(layers=layers, devices=devices, optimizer="momentum")


def check(about: Subject, cuts) -> None:
    """Make the check that training makes before its first step, of the boundaries at these cuts."""
    specs = crossings(about.model, example_input(dataset_shape("digits")))
    context = SimpleNamespace(
        settings=SimpleNamespace(strategy="torch-zb"),
        model=about.model,
        job=SimpleNamespace(size=1, all_gather=lambda value: [value]),
    )
    for cut in cuts:
        boundary = Boundary({(True, 4): specs[cut - 1]})
        boundaries = StageBoundaries(Boundary(), boundary)
        crossing = Crossing(boundaries, HOST, cut - 1, "PyTorch's pipeline", shows_graph=True)
        crossing.require_unvarying(context)


def test_a_model_with_residual_connections_is_cut_between_its_blocks(tmp_path):
    about = subject("residual_models:residual")
    found = rank(about, case_of(about), ["torch-zb", "zb-v", "sequential"])
    by_name = {each.name: each.forecast for each in found.ranked}
    # All of the ways are accepted, and the campaign has the very cuts.
    (zero_bubble,) = [each for each in found.ranked if each.name == "torch-zb"]
    for way in zero_bubble.ways:
        check(about, way.cuts[1:-1])
    path = tmp_path / "race.yaml"
    write_campaign(path, found, about, ["one"])
    campaign = read_checked_campaign(path)
    overrides = {each.strategy: each.overrides for each in campaign.contestants}
    assert overrides["torch-zb"]["cuts"] == list(by_name["torch-zb"].cuts[1:-1])
    assert "cuts" not in overrides["zb-v"]
    # Our own engine cuts inside of a block too, which this check would refuse.
    with pytest.raises(InputError, match=r"over which \(float32.* crosses and not exactly one"):
        check(about, range(1, len(about.model.layers)))


def test_where_too_few_cuts_are_left_the_reason_says_so():
    about = subject("residual_models:residual,blocks=1")
    found = rank(about, case_of(about, devices=4), ["torch-zb", "1f1b"])
    (left,) = found.left_out
    assert left.name == "torch-zb"
    assert "fewer than the stages" in left.reason
    assert left.reason.endswith("hand on exactly one floating-point tensor with a gradient")


def test_what_has_no_gradient_or_one_that_repeats_is_not_seen():
    class Sum(nn.Module):
        def forward(self, inputs):
            return inputs.sum(1, keepdim=True)

    layers = [nn.Flatten, lambda: nn.Linear(64, 8), nn.Tanh, Sum, lambda: nn.Linear(1, 10)]
    model = LayeredModel(
        "sum", tuple(Layer(f"layer{number}", build) for number, build in enumerate(layers))
    )
    found = crossings(model, torch.randn(4, 8, 8))
    # Nothing learns before the first linear layer; a sum gives all of its parts one gradient.
    assert [is_history_seen(spec, HOST) for spec in found] == [False, True, False, True]


def test_a_layer_that_fails_is_named():
    model = LayeredModel("bad", (Layer("first", lambda: nn.Linear(3, 2)),))
    with pytest.raises(InputError, match=r"layer 0 \(first\) of model 'bad' fails"):
        crossings(model, torch.randn(4, 8))


def test_of_the_engines_of_others_only_those_that_split_backwards_must_see_what_crosses():
    assert [name for name in STRATEGIES.names() if strategy_named(name).lone_crossing] == [
        "torch-zb"
    ]
