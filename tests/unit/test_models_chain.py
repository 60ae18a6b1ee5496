"""What every model must keep for the engines to cut it anywhere."""

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation
from hpc_lpm.data.dataset import DataShape
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import create_model

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = DataShape("image", (3, 32, 32), 10)
TEXT = DataShape("text", (12,), 256)
MODELS = [
    ("resnet20,width=2", IMAGES),
    ("vgg11,width=2", IMAGES),
    ("vgg16,width=2", IMAGES),
    ("mlp,width=8,layers=3", IMAGES),
    ("gpt,layers=2,width=8,heads=2", TEXT),
    ("gpt,layers=1,width=8,heads=2,dropout=0.2", TEXT),
]


every_model = pytest.mark.parametrize(("identifier", "shape"), MODELS)


def sample(shape: DataShape) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    if shape.kind == "text":
        tokens = torch.randint(shape.classes, (2, *shape.input_shape), generator=generator)
        return tokens, tokens
    return torch.randn(2, *shape.input_shape, generator=generator), torch.tensor([1, 2])


def tensors(activation: Activation) -> tuple[Tensor, ...]:
    return activation if isinstance(activation, tuple) else (activation,)


def build(model: LayeredModel, seed: int = 0) -> list[nn.Module]:
    return [model.build_layer(index, seed) for index in range(len(model.layers))]


@every_model
def test_every_float_output_requires_a_gradient(identifier: str, shape: DataShape) -> None:
    activation: Activation = sample(shape)[0]
    for layer in build(create_model(identifier, shape)):
        activation = layer(activation)
        assert all(tensor.requires_grad for tensor in tensors(activation))


@every_model
def test_layers_leave_their_inputs_as_they_were(identifier: str, shape: DataShape) -> None:
    activation: Activation = sample(shape)[0]
    for layer in build(create_model(identifier, shape)):
        before = [tensor.detach().clone() for tensor in tensors(activation)]
        following = layer(activation)
        assert all(map(torch.equal, before, tensors(activation)))
        activation = following


@every_model
def test_cutting_anywhere_gives_the_gradients_of_the_whole(
    identifier: str, shape: DataShape
) -> None:
    model = create_model(identifier.replace(",dropout=0.2", ""), shape)
    inputs, targets = sample(shape)

    whole = build(model)
    activation: Activation = inputs
    for layer in whole:
        activation = layer(activation)
    assert isinstance(activation, Tensor)
    model.loss(activation, targets).backward()

    cut = build(model)
    boundaries: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
    activation = inputs
    for layer in cut:
        output = layer(activation)
        leaves = tuple(tensor.detach().requires_grad_() for tensor in tensors(output))
        boundaries.append((tensors(output), leaves))
        activation = leaves if isinstance(output, tuple) else leaves[0]
    model.loss(boundaries[-1][1][0], targets).backward()
    for outputs, leaves in reversed(boundaries):
        torch.autograd.backward(outputs, [leaf.grad for leaf in leaves])

    for one, other in zip(whole, cut, strict=True):
        for weight, cut_weight in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(cut_weight.grad, weight.grad, rtol=1e-5, atol=1e-7)


@every_model
def test_weights_depend_on_seed_and_layer_alone(identifier: str, shape: DataShape) -> None:
    model = create_model(identifier, shape)
    in_order = build(model, seed=5)
    torch.manual_seed(99)
    for index in reversed(range(len(model.layers))):  # another order, another global state
        alone = model.build_layer(index, seed=5)
        for weight, same in zip(in_order[index].parameters(), alone.parameters(), strict=True):
            assert torch.equal(weight, same)


def test_weights_differ_between_seeds_and_between_equal_layers() -> None:
    model = create_model("mlp,width=3072,layers=3", IMAGES)
    first, second = model.build_layer(0, 0), model.build_layer(1, 0)
    assert not torch.equal(first.linear.weight, second.linear.weight)
    assert not torch.equal(first.linear.weight, model.build_layer(0, 1).linear.weight)


@every_model
def test_building_leaves_the_global_random_state_alone(identifier: str, shape: DataShape) -> None:
    before = torch.random.get_rng_state()
    build(create_model(identifier, shape))
    assert torch.equal(torch.random.get_rng_state(), before)


@every_model
def test_layer_names_are_unique(identifier: str, shape: DataShape) -> None:
    names = [layer.name for layer in create_model(identifier, shape).layers]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("identifier", ["vgg11,width=2", "vgg16,width=2"])
@pytest.mark.parametrize("size", [1, 8, 28, 32, 64])
def test_vgg_accepts_images_of_any_size(identifier: str, size: int) -> None:
    activation = torch.randn(2, 1, size, size)
    for layer in build(create_model(identifier, DataShape("image", (1, size, size), 5))):
        activation = layer(activation)
    assert activation.shape == (2, 5)


@pytest.mark.parametrize(("identifier", "convolutions"), [("vgg11", 8), ("vgg16", 13)])
def test_vgg_has_the_published_convolutions(identifier: str, convolutions: int) -> None:
    widths = [
        layer.weight.shape[0]
        for layer in build(create_model(identifier, IMAGES))
        if isinstance(layer, nn.Conv2d)
    ]
    assert len(widths) == convolutions
    assert (widths[0], widths[-1]) == (64, 512)


def test_mlp_equals_matrix_products() -> None:
    model = create_model("mlp,width=5,layers=3", DataShape("image", (1, 2, 2), 3))
    first, second, last = build(model)
    x = torch.randn(4, 1, 2, 2)
    hidden = torch.relu(x.reshape(4, 4) @ first.linear.weight.T + first.linear.bias)
    hidden = torch.relu(hidden @ second.linear.weight.T + second.linear.bias)
    expected = hidden @ last.weight.T + last.bias
    torch.testing.assert_close(last(second(first(x))), expected)
