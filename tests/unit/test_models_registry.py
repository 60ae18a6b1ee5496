"""Identifiers of models: options, the user's own callables and errors that help."""

from pathlib import Path

import pytest
import torch

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import MODELS, create_model

IMAGES = DataShape("image", (3, 32, 32), 10)

OWN = """
from torch import nn
from hpc_lpm.models.layered import Layer, LayeredModel

def builders(shape, width: int = 4):
    return [nn.Flatten, lambda: nn.Linear(3072, width), lambda: nn.Linear(width, shape.classes)]

def squared(shape, scale=1.0):
    layers = (Layer("only", nn.Flatten),)
    return LayeredModel("mine", layers, lambda o, t: scale * (o**2).mean(), lambda o, t: t.sum())

def wrong(shape):
    return 3

NUMBER = 5
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_models_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


BY_PLAIN_NAME = [name for name, entry in MODELS.items() if not entry.takes_path]


@pytest.mark.parametrize("name", BY_PLAIN_NAME)
def test_every_registered_model_is_created_by_its_name(name: str) -> None:
    shape = DataShape("text", (8,), 256) if name == "gpt" else IMAGES
    model = create_model(name, shape)
    assert model.name == name
    assert len(model.layers) >= 4


def test_name_keeps_the_options() -> None:
    assert create_model("resnet20,width=8", IMAGES).name == "resnet20,width=8"


def test_width_option_sets_the_channels() -> None:
    stem = create_model("resnet20,width=5", IMAGES).build_layer(0, 0)
    assert stem.weight.shape == (5, 3, 3, 3)


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("resnt20", "model 'resnt20' is unknown, did you mean 'resnet20'"),
        ("resnet20,wdth=8", "unknown option 'wdth', did you mean 'width'"),
        ("resnet20,depth=8", "unknown option 'depth'"),
        ("resnet20,width=wide", "'width' .* is 'wide', accepted is a whole number"),
        ("resnet20,width=", "'width' .* is '', accepted is a whole number"),
        ("resnet20,width=0", "'width' of resnet20 is 0, accepted are whole numbers from 1"),
        ("resnet20,width", "the part 'width', accepted is name,option=value"),
        ("resnet20,width=8,width=9", "'width' twice"),
        ("", "an empty part"),
        ("mlp,layers=1", "whole numbers from 2"),
    ],
)
def test_wrong_identifiers_are_explained(identifier: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model(identifier, IMAGES)


@pytest.mark.parametrize("identifier", ["resnet20", "vgg11", "mlp"])
def test_text_is_refused_by_image_models(identifier: str) -> None:
    with pytest.raises(InputError, match=rf"{identifier} takes (images|numbers).* holds text"):
        create_model(identifier, DataShape("text", (16,), 256))


def test_own_list_of_builders_becomes_a_chain(own_module: str) -> None:
    identifier = f"{own_module}:builders,width=6"
    model = create_model(identifier, IMAGES)
    assert model.name == identifier
    activation = torch.randn(2, 3, 32, 32)
    for index in range(len(model.layers)):
        activation = model.build_layer(index, 0)(activation)
    assert model.build_layer(1, 0).weight.shape == (6, 3072)
    assert activation.shape == (2, 10)
    assert model.loss(activation, torch.tensor([0, 1])).dim() == 0


def test_own_layered_model_keeps_its_loss_and_undeclared_options_are_guessed(
    own_module: str,
) -> None:
    model = create_model(f"{own_module}:squared,scale=3", IMAGES)
    assert model.loss(torch.full((2, 2), 2.0), torch.zeros(2)).item() == 12.0


@pytest.mark.parametrize(
    ("callable_name", "message"),
    [
        ("wrong", "returned int, accepted are a LayeredModel,"),
        ("buildrs", "no name 'buildrs', did you mean 'builders'"),
        ("NUMBER", "NUMBER' is not callable but of type int, accepted is a function NUMBER"),
        ("builders,depth=3", "unknown option 'depth'"),
    ],
)
def test_wrong_own_models_are_explained(own_module: str, callable_name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model(f"{own_module}:{callable_name}", IMAGES)


def test_missing_own_module_is_explained() -> None:
    with pytest.raises(InputError, match=r"'no_such_module_here' .* cannot be imported"):
        create_model("no_such_module_here:make", IMAGES)
