"""What a user's function may return: modules, sequences, specifications, each as a chain."""

from pathlib import Path

import pytest
import torch
from deepspeed.pipe import LayerSpec, TiedLayerSpec
from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.models.capture import layers_of
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.listed import listed_model
from hpc_lpm.models.registry import create_model

IMAGES = DataShape("image", (1, 4, 4), 3)
TEXT = DataShape("text", (6,), 11)

MODELS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, classes)

    def forward(self, images):
        return self.last(torch.relu(self.first(images.flatten(1))))


class Reader(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.embed, self.head = nn.Embedding(classes, 8), nn.Linear(8, classes)

    def forward(self, ids, scale=1.0):
        return {"logits": self.head(self.embed(ids)) * scale, "other": ids}


def module(shape):
    return Net(shape.classes)

def text(shape):
    return Reader(shape.classes)

def sequence(shape):
    return nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(16, 8), nn.ReLU()), nn.Linear(8, 3))

def with_tensor(shape):
    return Net(shape.classes), torch.zeros(2, 16)

def with_keywords(shape):
    return Reader(shape.classes), {"scale": 2.0, "ids": torch.zeros(2, 6, dtype=torch.int64)}

def modules(shape):
    return [nn.Flatten(), nn.Linear(16, 3)]

def mixed(shape):
    return nn.Flatten(), lambda: nn.Linear(16, 3)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_listed.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)


def run(model: LayeredModel, activation: object) -> object:
    for index in range(len(model.layers)):
        activation = model.build_layer(index, 0)(activation)
    return activation


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("function", "shape", "names"),
    [
        ("module", IMAGES, ["first", "last"]),
        ("text", TEXT, ["embed", "head"]),
        ("sequence", IMAGES, ["0", "1.0", "1.1", "2"]),
        ("with_tensor", IMAGES, ["first", "last"]),
        ("with_keywords", TEXT, ["embed", "head"]),
        ("modules", IMAGES, ["layer0", "layer1"]),
        ("mixed", IMAGES, ["layer0", "layer1"]),
    ],
)
def test_each_becomes_a_chain_that_is_the_same_under_one_seed(
    function: str, shape: DataShape, names: list[str]
) -> None:
    identifier = f"own_listed:{function}"
    model = create_model(identifier, shape, seed=3)
    assert model.name == identifier
    assert [layer.name for layer in model.layers] == names
    if shape is IMAGES:
        inputs: object = torch.randn(5, 1, 4, 4)
    else:
        inputs = torch.randint(0, 11, (5, 6))
        if function == "with_keywords":
            inputs = {"ids": inputs, "scale": 2.0}
    output = run(model, inputs)
    assert isinstance(output, Tensor)
    assert output.shape[-1] == shape.classes
    assert torch.equal(run(create_model(identifier, shape, seed=3), inputs), output)
    if function != "mixed":
        assert not torch.equal(run(create_model(identifier, shape, seed=4), inputs), output)


def test_a_sequence_keeps_its_names_and_tells_which_modules_end() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    module = nn.Sequential(nn.Linear(4, 4), block, nn.Linear(4, 2))
    model = layers_of(module, "net")
    assert [[end.path for end in layer.ends] for layer in model.layers] == [
        ["0"], ["1.0"], ["1.1", "1"], ["2"],
    ]  # fmt: skip
    names = [name for layer in model.layers for name in layer.original.values()]
    assert names == list(module.state_dict())
    inputs = torch.randn(3, 4)
    given = inputs.clone()
    assert torch.equal(run(model, inputs), module(given))
    activation = torch.randn(3, 4)
    before = activation.clone()
    model.build_layer(2, 0)(activation)
    assert torch.equal(activation, before)


def test_modules_of_a_sequence_that_are_one_are_tied() -> None:
    shared = nn.Linear(4, 4)
    model = layers_of(nn.Sequential(shared, nn.ReLU(), shared), "net")
    assert [layer.name for layer in model.layers] == ["0", "1", "2"]
    places = [(t.owner_layer, t.owner_parameter, t.copy_layer) for t in model.ties]
    assert places == [(0, "weight", 2), (0, "bias", 2)]
    assert model.aliases == {"2.weight": "0.weight", "2.bias": "0.bias"}


def test_modules_that_share_a_buffer_are_one_layer_with_those_between() -> None:
    norm = nn.BatchNorm1d(4)
    module = nn.Sequential(nn.Linear(4, 4), norm, nn.ReLU(), norm, nn.Linear(4, 2))
    model = layers_of(module, "net")
    assert [layer.name for layer in model.layers] == ["0", "1..3", "4"]
    layers = [layer.build() for layer in model.layers]
    activation = inputs = torch.randn(5, 4)
    for layer in layers:
        activation = layer(activation)
    assert torch.equal(activation, module(inputs))
    assert torch.equal(layers[1].get_buffer("0.running_mean"), norm.running_mean)


def test_specifications_are_built_and_tied_by_their_keys() -> None:
    def projected(module: nn.Embedding, hidden: Tensor) -> Tensor:
        return hidden @ module.weight.T

    made = [
        TiedLayerSpec("words", nn.Embedding, 11, 4),
        LayerSpec(nn.Linear, 4, 4, bias=False),
        lambda hidden: hidden * 2,
        nn.Tanh(),
        TiedLayerSpec("words", nn.Embedding, 11, 4, forward_fn=projected),
    ]
    model = listed_model("net", made)
    [tie] = model.ties
    assert (tie.owner_layer, tie.owner_parameter) == (0, "weight")
    assert (tie.copy_layer, tie.copy_parameter) == (4, "module.weight")
    layers = [model.build_layer(index, 7) for index in range(5)]
    words, inner = layers[0].weight, layers[1].weight
    ids = torch.tensor([[1, 2, 3]])
    activation: object = ids
    for layer in layers:
        activation = layer(activation)
    expected = torch.tanh(nn.functional.embedding(ids, words) @ inner.T * 2) @ words.T
    assert torch.equal(activation, expected)


def test_specifications_of_two_classes_share_what_both_have() -> None:
    made = [
        TiedLayerSpec("words", nn.Embedding, 11, 4),
        LayerSpec(nn.Linear, 4, 4),
        TiedLayerSpec("words", nn.Linear, 4, 11),
    ]
    model = listed_model("net", made)
    [tie] = model.ties
    assert (tie.owner_parameter, tie.copy_layer, tie.copy_parameter) == ("weight", 2, "weight")
    words, head = (model.build_layer(index, 7) for index in (0, 2))
    assert torch.equal(words.weight, head.weight)
    assert head.bias.shape == (11,)


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (
            TiedLayerSpec("words", nn.PReLU),
            r"layers 0 and 1 have the key 'words', but weight of the shapes \[11, 4\] and \[1\]",
        ),
        (
            TiedLayerSpec("words", nn.GRU, 4, 4),
            "layers 0 and 1 have the key 'words', but no parameter under the same name: weight and",
        ),
        (TiedLayerSpec("words", nn.Linear), r"layer 1 \(layer1\) .* cannot be built, TypeError"),
    ],
)
def test_specifications_that_cannot_share_are_refused_in_a_sentence(
    second: TiedLayerSpec, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        listed_model("net", [TiedLayerSpec("words", nn.Embedding, 11, 4), second])


def test_modules_that_share_a_buffer_are_one_layer_beside_builders_too() -> None:
    norm = nn.BatchNorm1d(4)
    model = listed_model("net", [norm, lambda: nn.Linear(4, 4), norm, nn.ReLU])
    assert [layer.name for layer in model.layers] == ["layer0 to layer2", "layer3"]
    built = model.build_layer(0, 0)
    assert built[0] is built[2]
    assert built[0] is not norm
