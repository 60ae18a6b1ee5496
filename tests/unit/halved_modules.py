"""Modules whose backward pass is split in tests: ordinary ones, odd ones, and random ones."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

Made = Tensor | tuple[Tensor, ...]


class Calls(nn.Module):
    """A module whose forward pass is a function of the module and its inputs."""

    def __init__(self, run: Callable[..., Made], **parts: object) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Made:
        return self.run(self, *inputs)


class ScaledByWeight(torch.autograd.Function):
    """A Function whose backward computes both gradients at once."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return inputs * weight

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        inputs, weight = ctx.saved_tensors
        return gradient * weight, (gradient * inputs).sum(0)


class Doubled(torch.autograd.Function):
    """Saves nothing."""

    @staticmethod
    def forward(ctx, inputs: Tensor) -> Tensor:
        return inputs * 2

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * 2


class Addmm(torch.autograd.Function):
    """Its node is called nearly as that of torch's own operation; it has gradients of its own."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return inputs @ weight

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        inputs, weight = ctx.saved_tensors
        return 2 * gradient @ weight.T, 3 * inputs.T @ gradient


def parameter(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, dtype=dtype) / 2)


@dataclass(frozen=True)
class Case:
    """How to build a module, and the shapes of its inputs."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = ((4, 6),)
    dtype: torch.dtype = torch.float32
    autocast: bool = False


def residual_block() -> nn.Module:
    return Calls(
        lambda m, x: functional.relu(x + m.second(functional.relu(m.first(x)))),
        first=nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)),
        second=nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)),
    )


def transformer_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


def frozen_first() -> nn.Module:
    made = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    made[0].weight.requires_grad_(False)
    return made


def in_place_on_view(m: Calls, x: Tensor) -> Tensor:
    hidden = m.first(x)
    hidden[:, :3].mul_(m.scale)
    hidden[:, 3:].add_(m.first(x)[:, 3:])
    return m.second(hidden)


def scaled_gradient(m: Calls, x: Tensor) -> Tensor:
    hidden = m.first(x)
    hidden.register_hook(lambda gradient: gradient * 0.5)
    return m.second(torch.tanh(hidden))


@torch.compile(backend="aot_eager")
def compiled(x: Tensor, weight: Tensor) -> Tensor:
    return torch.tanh(x @ weight)


class Experts(nn.Module):
    """Sends each sample to one of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.chooses = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.chooses(x).softmax(-1)
        result = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            (chosen,) = torch.where(weights.argmax(-1) == number)
            part = expert(x[chosen]) * weights[chosen, number : number + 1]
            result = result.index_add(0, chosen, part)
        return result


def standardised(m: Calls, x: Tensor) -> Tensor:
    weight = functional.layer_norm(m.layer.weight, m.layer.weight.shape[1:])
    return functional.conv2d(x, weight, m.layer.bias)


def shared_through_norm(m: Calls, x: Tensor) -> Tensor:
    weight = functional.normalize(m.weight, dim=1)
    return torch.tanh(x @ weight) @ weight


def with_learned_tokens(m: Calls, x: Tensor) -> Tensor:
    return m.mix(torch.cat([m.tokens.expand(len(x), -1, -1), x + m.places[: x.shape[1]]], dim=1))


def auxiliary(m: Calls, x: Tensor) -> tuple[Tensor, ...]:
    hidden = torch.tanh(m.first(x))
    return hidden, m.second(hidden), m.alone(m.constant), x


def tied_within(m: Calls, x: Tensor) -> Tensor:
    return functional.linear(torch.tanh(m.first(x)), m.first.weight)


CASES = {
    "linear": Case(lambda: nn.Linear(6, 3)),
    "perceptron": Case(lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))),
    "sequence": Case(
        lambda: nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)), ((2, 3, 6),)
    ),
    "residual block": Case(residual_block, ((2, 3, 5, 5),)),
    "depthwise": Case(lambda: nn.Conv2d(4, 8, 3, groups=4, dilation=2, stride=2), ((2, 4, 9, 9),)),
    "grouped": Case(lambda: nn.Conv1d(4, 6, 3, groups=2), ((2, 4, 9),)),
    "transposed": Case(lambda: nn.ConvTranspose2d(3, 2, 3, stride=2), ((2, 3, 4, 4),)),
    "volumes": Case(lambda: nn.Conv3d(2, 3, 2), ((2, 2, 3, 4, 5),)),
    "transformer": Case(transformer_layer, ((2, 3, 8),)),
    "attention": Case(
        lambda: Calls(lambda m, x: m.heads(x, x, x)[0], heads=nn.MultiheadAttention(8, 2)),
        ((3, 2, 8),),
    ),
    "lstm": Case(lambda: Calls(lambda m, x: m.cells(x)[0], cells=nn.LSTM(6, 4)), ((3, 2, 6),)),
    "gru": Case(lambda: Calls(lambda m, x: m.cells(x)[0], cells=nn.GRU(6, 4)), ((3, 2, 6),)),
    "norms": Case(
        lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.PReLU(6), nn.GroupNorm(2, 6))
    ),
    "bilinear": Case(lambda: nn.Bilinear(6, 5, 3), ((4, 6), (4, 5))),
    "weight norm": Case(lambda: parametrizations.weight_norm(nn.Linear(6, 3))),
    "spectral norm": Case(lambda: parametrizations.spectral_norm(nn.Linear(6, 3))),
    "orthogonal": Case(lambda: parametrizations.orthogonal(nn.Linear(6, 6))),
    "shared norm": Case(lambda: Calls(shared_through_norm, weight=parameter(6, 6))),
    "tied": Case(lambda: Calls(tied_within, first=nn.Linear(6, 6))),
    "called twice": Case(
        lambda: Calls(lambda m, x: m.layer(torch.tanh(m.layer(x))), layer=nn.Linear(6, 6))
    ),
    "tokens": Case(
        lambda: Calls(
            with_learned_tokens,
            tokens=parameter(1, 2, 8),
            places=parameter(9, 8),
            mix=nn.Linear(8, 8),
        ),
        ((2, 3, 8),),
    ),
    "looked up": Case(
        lambda: Calls(
            lambda m, x: m.last(
                x + m.table(torch.arange(4)) + m.sparse(torch.tensor([1, 1, 0, 2]))
            ),
            table=nn.Embedding(5, 6),
            sparse=nn.Embedding(3, 6, sparse=True),
            last=nn.Linear(6, 2),
        )
    ),
    "custom function": Case(
        lambda: Calls(
            lambda m, x: m.last(ScaledByWeight.apply(m.first(x), m.scale)),
            first=nn.Linear(6, 6),
            scale=parameter(6),
            last=nn.Linear(6, 2),
        )
    ),
    "namesake": Case(lambda: Calls(lambda m, x: Addmm.apply(x, m.weight), weight=parameter(6, 3))),
    "weight of a function": Case(
        lambda: Calls(
            lambda m, x: x @ ScaledByWeight.apply(m.weight, m.scale),
            weight=parameter(6, 3),
            scale=parameter(3),
        )
    ),
    "function that saves nothing": Case(
        lambda: Calls(lambda m, x: x @ Doubled.apply(m.weight), weight=parameter(6, 3))
    ),
    "compiled": Case(
        lambda: Calls(
            lambda m, x: m.last(compiled(m.first(x), m.weight)),
            first=nn.Linear(6, 6),
            weight=parameter(6, 3),
            last=nn.Linear(3, 3),
        )
    ),
    "experts": Case(Experts, ((8, 6),)),
    "standardised": Case(lambda: Calls(standardised, layer=nn.Conv2d(3, 4, 3)), ((2, 3, 6, 6),)),
    "causal attention": Case(
        lambda: Calls(
            lambda m, x: functional.scaled_dot_product_attention(
                *m.layer(x).chunk(3, -1), is_causal=True
            ),
            layer=nn.Linear(8, 24),
        ),
        ((2, 5, 8),),
    ),
    "decoder": Case(
        lambda: Calls(
            lambda m, x: m.layer(x, x),
            layer=nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        ),
        ((2, 3, 8),),
    ),
    "channels last": Case(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=2)).to(
            memory_format=torch.channels_last
        ),
        ((2, 3, 9, 9),),
    ),
    "mixed types": Case(
        lambda: Calls(
            lambda m, x: x * m.weight + m.shift,
            weight=parameter(6, dtype=torch.float64),
            shift=parameter(6, dtype=torch.float16),
        )
    ),
    "twice in one sum": Case(
        lambda: Calls(
            lambda m, x: torch.cat([m.weight * 2, x, m.weight, m.weight.exp()]),
            weight=parameter(1, 6),
        )
    ),
    "checkpoint": Case(
        lambda: Calls(
            lambda m, x: m.last(checkpoint(m.first, m.before(x), use_reentrant=False)),
            before=nn.Linear(6, 6),
            first=nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)),
            last=nn.Linear(6, 2),
        )
    ),
    "reentrant checkpoint": Case(
        lambda: Calls(
            lambda m, x: m.last(checkpoint(m.first, m.before(x), use_reentrant=True)),
            before=nn.Linear(6, 6),
            first=nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)),
            last=nn.Linear(6, 2),
        )
    ),
    "in place": Case(
        lambda: nn.Sequential(
            nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(True)
        )
    ),
    "in place on a view": Case(
        lambda: Calls(
            in_place_on_view, first=nn.Linear(6, 6), scale=parameter(3), second=nn.Linear(6, 2)
        )
    ),
    "several outputs": Case(
        lambda: Calls(
            auxiliary,
            first=nn.Linear(6, 6),
            second=nn.Linear(6, 2),
            alone=nn.Linear(3, 3),
            constant=parameter(2, 3),
        )
    ),
    "parameter as output": Case(
        lambda: Calls(
            lambda m, x: (m.weight, m.first(x)), weight=parameter(3), first=nn.Linear(6, 2)
        )
    ),
    "used and returned": Case(
        lambda: Calls(lambda m, x: (m.weight, x @ m.weight), weight=parameter(6, 6))
    ),
    "two inputs": Case(
        lambda: Calls(
            lambda m, x, y: m.first(x) + m.second(y), first=nn.Linear(6, 3), second=nn.Linear(5, 3)
        ),
        ((4, 6), (4, 5)),
    ),
    "unused": Case(
        lambda: Calls(lambda m, x: m.first(x), first=nn.Linear(6, 3), rest=nn.Linear(6, 3))
    ),
    "independent of the input": Case(
        lambda: Calls(lambda m, x: m.first(m.weight), first=nn.Linear(6, 3), weight=parameter(2, 6))
    ),
    "frozen": Case(frozen_first),
    "adapted": Case(
        lambda: Calls(
            lambda m, x: m.base(x) + m.up(m.down(x)),
            base=nn.Linear(6, 6).requires_grad_(False),
            down=nn.Linear(6, 2, bias=False),
            up=nn.Linear(2, 6, bias=False),
        )
    ),
    "no parameter": Case(nn.Tanh),
    "affine": Case(
        lambda: Calls(
            lambda m, x: torch.addcmul(m.shift, x / m.scale, m.gain) ** m.power.abs(),
            shift=nn.Parameter(torch.full((6,), 99.0)),
            scale=nn.Parameter(torch.ones(6)),
            gain=parameter(4, 1),
            power=nn.Parameter(torch.tensor(0.5)),
        )
    ),
    "products": Case(
        lambda: Calls(
            lambda m, x: (
                torch.baddbmm(m.shift, torch.einsum("nij,jk->nik", x, m.first), m.second) @ m.vector
            ),
            shift=parameter(3, 4),
            first=parameter(6, 5),
            second=parameter(2, 5, 4),
            vector=parameter(4),
        ),
        ((2, 3, 6),),
    ),
    "complex": Case(
        lambda: Calls(
            lambda m, x: torch.fft.fft(x) @ m.weight * m.gain,
            weight=parameter(6, 3, dtype=torch.complex64),
            gain=parameter(3),
        )
    ),
    "bfloat16": Case(
        lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).bfloat16(),
        dtype=torch.bfloat16,
    ),
    "autocast": Case(
        lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2)),
        autocast=True,
    ),
    "autocast twice": Case(
        lambda: Calls(lambda m, x: m.layer(torch.tanh(m.layer(x))), layer=nn.Linear(6, 6)),
        autocast=True,
    ),
    "hook on an activation": Case(
        lambda: Calls(scaled_gradient, first=nn.Linear(6, 6), second=nn.Linear(6, 2))
    ),
    "scalar": Case(lambda: Calls(lambda m, x: m.first(x).square().mean(), first=nn.Linear(6, 3))),
}
"""Modules by what is odd about them."""


def random_module(seed: int) -> nn.Module:
    """Return a module that computes a random graph of operations on tensors [4, 6]."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    weights = nn.ParameterList(
        [parameter(6, 6) for _ in range(4)] + [parameter(6) for _ in range(4)]
    )
    norms = nn.ModuleList([nn.BatchNorm1d(6), nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6)])
    steps = [
        (draw.choice(list(_STEPS)), draw.random(), draw.random(), draw.random())
        for _ in range(draw.randint(3, 14))
    ]
    kept = [draw.random() for _ in range(draw.randint(1, 3))]

    def run(m: Calls, x: Tensor) -> tuple[Tensor, ...]:
        values = [x, x * 1.0]
        for name, first, second, which in steps:
            # Mostly of what was computed last, so that graphs are deep as well as wide.
            one = values[-1 - int(first**2 * len(values))]
            other = values[-1 - int(second * len(values))]
            values.append(_STEPS[name](m, one, other, which))
        return (values[-1], *(values[int(part * len(values))] for part in kept))

    return Calls(run, weights=weights, norms=norms)


def _matrix(m: Calls, which: float) -> Tensor:
    return m.weights[int(which * 4)]


def _vector(m: Calls, which: float) -> Tensor:
    return m.weights[4 + int(which * 4)]


_STEPS: dict[str, Callable[[Calls, Tensor, Tensor, float], Tensor]] = {
    "product": lambda m, a, b, which: torch.tanh(a @ _matrix(m, which)),
    "addmm": lambda m, a, b, which: torch.addmm(
        _vector(m, which), torch.tanh(a), _matrix(m, which * which)
    ),
    "plus": lambda m, a, b, which: a + _vector(m, which),
    "times": lambda m, a, b, which: torch.tanh(a) * _vector(m, which),
    "join": lambda m, a, b, which: a - torch.sigmoid(b),
    "apply": lambda m, a, b, which: torch.tanh(m.norms[int(which * 4)](a)),
    "function": lambda m, a, b, which: ScaledByWeight.apply(torch.tanh(a), _vector(m, which)),
    "derived": lambda m, a, b, which: torch.tanh(a) @ (_matrix(m, which) * _vector(m, which)),
    "of weights": lambda m, a, b, which: (_matrix(m, which) @ _vector(m, which)).expand(4, 6),
    "slices": lambda m, a, b, which: torch.cat([torch.tanh(a)[:, 3:], b[:, :3].clone().sin_()], 1),
}
