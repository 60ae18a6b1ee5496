"""ResNet: the chain of layers is the published network."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import create_model

CIFAR = DataShape("image", (3, 32, 32), 10)


def build_all(identifier: str, shape: DataShape = CIFAR, seed: int = 0) -> list[nn.Module]:
    model = create_model(identifier, shape)
    return [model.build_layer(index, seed) for index in range(len(model.layers))]


def run(layers: list[nn.Module], inputs: Tensor) -> Tensor:
    for layer in layers:
        inputs = layer(inputs)
    return inputs


def plain_resnet(weights: list[Tensor], blocks: int, x: Tensor) -> Tensor:
    """He et al. 2016, section 4.2, option A, written down without the package.

    `weights` are taken in order: each convolution's, each normalisation's scale and shift, at last
    the classifier's weight and bias.
    """
    remaining = iter(weights)

    def conv(y: Tensor, stride: int = 1) -> Tensor:
        return functional.conv2d(y, next(remaining), stride=stride, padding=1)

    def norm(y: Tensor) -> Tensor:
        mean = y.mean((0, 2, 3), keepdim=True)
        variance = ((y - mean) ** 2).mean((0, 2, 3), keepdim=True)
        scale, shift = next(remaining), next(remaining)
        normal = (y - mean) / torch.sqrt(variance + 1e-5)
        return normal * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    y = torch.relu(norm(conv(x)))
    for group in range(3):
        for block in range(blocks):
            stride = 2 if group > 0 and block == 0 else 1
            main = torch.relu(norm(conv(y, stride)))
            main = norm(conv(main))
            shortcut = torch.zeros_like(main)
            offset = (main.shape[1] - y.shape[1]) // 2
            shortcut[:, offset : offset + y.shape[1]] = y[:, :, ::stride, ::stride]
            y = torch.relu(main + shortcut)
    return functional.linear(y.mean((2, 3)), next(remaining), next(remaining))


def test_chain_of_layers_equals_a_plain_resnet_in_outputs_and_gradients() -> None:
    layers = build_all("resnet20,width=4")
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    with torch.no_grad():  # scales and shifts away from 1 and 0, where errors could hide
        for parameter in parameters:
            if parameter.dim() == 1:
                parameter.add_(torch.rand(parameter.shape))
    weights = [parameter.detach().double().requires_grad_() for parameter in parameters]
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    chained = run([layer.double() for layer in layers], inputs.double())
    plain = plain_resnet(weights, 3, inputs.double())

    torch.testing.assert_close(chained, plain, rtol=1e-9, atol=1e-9)
    chosen = torch.arange(4)
    functional.cross_entropy(chained, chosen).backward()
    functional.cross_entropy(plain, chosen).backward()
    for layer_weight, weight in zip(
        (parameter for layer in layers for parameter in layer.parameters()), weights, strict=True
    ):
        torch.testing.assert_close(layer_weight.grad, weight.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_parameter_counts_are_those_published(depth: int, millions: float) -> None:
    count = sum(p.numel() for layer in build_all(f"resnet{depth}") for p in layer.parameters())
    digits = 1 if depth == 110 else 2
    assert round(count / 1e6, digits) == millions


@pytest.mark.parametrize("size", [8, 28, 33])
def test_any_image_size_from_8_is_accepted(size: int) -> None:
    shape = DataShape("image", (1, size, size), 7)
    assert run(build_all("resnet20,width=2", shape), torch.randn(2, 1, size, size)).shape == (2, 7)


def test_smaller_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least 8x8 pixels.*7x9"):
        create_model("resnet20", DataShape("image", (1, 7, 9), 10))


def test_skip_connection_crosses_inside_blocks_alone() -> None:
    model = create_model("resnet20,width=2", CIFAR)
    layers = build_all("resnet20,width=2")
    activation = torch.randn(2, 3, 32, 32)
    for layer, described in zip(layers, model.layers, strict=True):
        activation = layer(activation)
        inside = described.name.rsplit(".", 1)[-1] in {"conv1", "norm1", "conv2"}
        assert isinstance(activation, tuple) == inside, described.name
