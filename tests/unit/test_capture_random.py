"""Networks of random structure, made of what users write, are captured to the last bit."""

from collections.abc import Callable

import torch
from captured_networks import results_of_chain, results_of_module
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn
from torch.nn import functional

from hpc_lpm.models.capture import capture_model

WIDTH = 6


def without_gradient(net: "RandomNetwork", one: Tensor, other: Tensor, number: int) -> Tensor:
    with torch.no_grad():
        mean = other.mean(0)
    return one - mean


def counted(net: "RandomNetwork", one: Tensor, other: Tensor, number: int) -> Tensor:
    net.count += 1
    return one / (1 + net.count)


def written(net: "RandomNetwork", one: Tensor, other: Tensor, number: int) -> Tensor:
    found = one.clone()
    found[:, number % WIDTH] = other[:, 0]
    return found


def turned(net: "RandomNetwork", one: Tensor, other: Tensor, number: int) -> Tensor:
    return one.view(one.shape[0], 2, 3).transpose(1, 2).reshape(len(one), -1)


def attended(net: "RandomNetwork", one: Tensor, other: Tensor, number: int) -> Tensor:
    queries, keys = one[:, None, :, None], other[:, None, :, None]
    return functional.scaled_dot_product_attention(queries, keys, queries).flatten(1)


def noisy(net: "RandomNetwork", one: Tensor, other: Tensor, number: int) -> Tensor:
    return one + torch.rand_like(one) if net.training else one


Operation = Callable[["RandomNetwork", Tensor, Tensor, int], Tensor]
OPERATIONS: list[Operation] = [
    lambda net, one, other, number: net.linears[number % 4](one),
    lambda net, one, other, number: net.norms[number % 2](one),
    lambda net, one, other, number: functional.relu(net.linears[number % 4](one), inplace=True),
    lambda net, one, other, number: net.drop(one),
    lambda net, one, other, number: one + other,
    lambda net, one, other, number: one * torch.sigmoid(other),
    lambda net, one, other, number: torch.cat([one, other], 1)[:, 3:9],
    lambda net, one, other, number: torch.cat(other.chunk(3, 1)[::-1], 1) + one,
    lambda net, one, other, number: one.detach() * other,
    lambda net, one, other, number: one * (other > 0),
    lambda net, one, other, number: one.gather(1, other.argsort(1)),
    lambda net, one, other, number: one * net.scale,
    lambda net, one, other, number: one @ net.table,
    lambda net, one, other, number: one + 0.1 * torch.arange(WIDTH).expand(len(one), -1),
    lambda net, one, other, number: one if net.training else one * 1.01 + other,
    without_gradient,
    counted,
    written,
    turned,
    attended,
    noisy,
]


class RandomNetwork(nn.Module):
    """Each step computes a value from one of the last values and any other."""

    def __init__(self, steps: list[tuple[int, int, int, int]]) -> None:
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(4)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(WIDTH), nn.LayerNorm(WIDTH)])
        self.drop = nn.Dropout(0.2)
        self.scale = nn.Parameter(torch.randn(WIDTH))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("table", torch.ones(WIDTH, WIDTH).tril())
        self.steps = steps

    def forward(self, inputs: Tensor) -> Tensor:
        values = [self.linears[0](inputs)]
        for operation, first, second, number in self.steps:
            one, other = values[-1 - first % min(3, len(values))], values[second % len(values)]
            values.append(OPERATIONS[operation](self, one, other, number))
        return values[-1] + values[len(values) // 2] + inputs


def vectors(samples: int) -> Tensor:
    return torch.randn(samples, WIDTH, generator=torch.Generator().manual_seed(samples))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    some.lists(
        some.tuples(some.integers(0, len(OPERATIONS) - 1), *[some.integers(0, 30)] * 3),
        min_size=6,
        max_size=20,
    )
)
def test_any_network_and_its_chain_have_the_same_bits(
    steps: list[tuple[int, int, int, int]],
) -> None:
    torch.manual_seed(0)
    module = RandomNetwork(steps)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = capture_model(module, vectors(3))
    for apart in (False, True):
        for training in (True, False):
            module.load_state_dict(before)
            module.zero_grad()
            layers = [layer.build().train(training) for layer in model.layers]
            expected = results_of_module(module.train(training), vectors(4))
            found = results_of_chain(layers, vectors(4), apart)
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])
            tied = {(t.owner_layer, t.owner_parameter) for t in model.ties}
            tied |= {(t.copy_layer, t.copy_parameter) for t in model.ties}
            for number, layer in enumerate(layers):
                for own, parameter in layer.named_parameters():
                    # Sums over several uses associate otherwise where these are in several layers.
                    original = module.get_parameter(model.layers[number].original[own])
                    if (number, own) not in tied and original.grad is not None:
                        assert torch.equal(parameter.grad, original.grad)
                for own, buffer in layer.named_buffers():
                    name = model.layers[number].original[own]
                    assert torch.equal(buffer, module.get_buffer(name))
