"""The policy `live` in mixed precision: backward reads casts of the weights as they are then."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.engine.pipeline.derived_weights import keeps_derived_weights
from hpc_lpm.engine.pipeline.weight_policy import LiveCastWeights, LiveWeights, weight_policy
from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.gpt import Attention, FeedForward

IMAGES = (2, 3, 6, 6)
BF16 = ComputeFormat("bf16")
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (4, 6)),
    "linear on a sequence": (lambda: nn.Linear(6, 5, bias=False), (4, 3, 6)),
    "convolution": (lambda: nn.Conv2d(3, 5, 3), IMAGES),
    "grouped convolution": (lambda: nn.Conv1d(4, 4, 3, groups=2), (2, 4, 6)),
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 5, 2), (2, 3, 6, 6)),
    "attention": (lambda: Attention(8, 2, 0.0, 1), (2, 3, 8)),
    "feed forward": (lambda: FeedForward(8, 0.0, 1), (2, 3, 8)),
    "a weight and its transpose": (lambda: Twice(4), (3, 4)),
    "channels last": (lambda: nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last), IMAGES),
}


NOT_LINEAR = ("attention", "feed forward")


class Twice(nn.Module):
    """Reads one weight twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight @ self.weight.t()


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self.weight[:3])


def forward(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    inputs = torch.randn(shape).requires_grad_()
    with BF16.autocast(inputs.device):
        return inputs, layer(inputs)


@pytest.mark.parametrize("name", LAYERS)
def test_no_cast_is_kept_and_backward_reads_the_weights_of_then(name: str) -> None:
    build, shape = LAYERS[name]
    layer = build()
    policy = LiveCastWeights(list(layer.parameters()))
    kept: list[object] = []
    keep = policy._keep
    policy._keep = lambda tensor: kept.append(keep(tensor)) or kept[-1]  # type: ignore
    with policy.lagged_forward():
        inputs, outputs = forward(layer, shape)
    names = [type(one).__name__ for one in kept]
    matrices = [p for p in layer.parameters() if p.dim() > 1]
    assert names.count("_CastWeight") >= len(matrices)
    with policy.update(), torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    outputs.sum().backward()
    # All weights are zero by then: nothing comes through, but beside them (residual branches).
    residual = torch.ones_like(inputs) if name in ("attention", "feed forward") else 0.0
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, torch.zeros_like(inputs) + residual)


@pytest.mark.parametrize("name", LAYERS)
def test_backward_is_that_of_a_graph_of_the_weights_of_then(name: str) -> None:
    # Nothing that a forward pass computes is kept by linear layers but inputs and weights, so that
    # the gradient of the inputs tells which weights were read, in which order in memory.
    build, shape = LAYERS[name]
    layer, other = build(), build()
    policy = LiveCastWeights(list(layer.parameters()))
    with policy.lagged_forward():
        inputs, outputs = forward(layer, shape)
    with policy.update(), torch.no_grad():
        for parameter, now in zip(layer.parameters(), other.parameters(), strict=True):
            parameter.copy_(now)
    outputs.sum().backward()
    expected, of_other = forward(other, shape)
    of_other.sum().backward()
    assert inputs.grad is not None and expected.grad is not None
    if name not in NOT_LINEAR:
        assert torch.equal(inputs.grad, expected.grad)
    assert not torch.equal(inputs.grad, torch.zeros_like(inputs))


def test_the_weights_of_then_are_cast_once_an_update() -> None:
    layer = nn.Linear(6, 5)
    policy = LiveCastWeights(list(layer.parameters()))
    flights = []
    for _ in range(2):
        with policy.lagged_forward():
            flights.append(forward(layer, (4, 6)))
    for value in (2.0, 3.0):
        with policy.update(), torch.no_grad():
            layer.weight.fill_(value)
        inputs, outputs = flights.pop()
        outputs.sum().backward()
        assert inputs.grad is not None
        assert torch.equal(inputs.grad, torch.full_like(inputs, value * 5))
        assert len(policy._casts) == 1


@pytest.mark.parametrize(("kind", "found"), [(Part, True), (nn.Linear, False)])
def test_a_layer_that_casts_a_part_of_a_weight_is_found(kind: type, found: bool) -> None:
    layer = kind() if kind is Part else kind(4, 3)
    policy = LiveCastWeights(list(layer.parameters()))
    inputs = torch.randn(2, 4, requires_grad=True)
    with ComputeFormat("bf16").autocast(inputs.device):
        _, deriving = keeps_derived_weights(layer, inputs, policy.reads_anew, lambda kept: kept)
    assert deriving is found


def test_in_single_precision_nothing_is_watched() -> None:
    assert type(weight_policy("live", [])) is LiveWeights
    assert type(weight_policy("live", [], casts=True)) is LiveCastWeights
