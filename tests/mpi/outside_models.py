"""Users' own models, each with something that outside engines do not take by themselves."""

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy

WIDTH = 16


class Calls(nn.Module):
    """A layer that calls a function with its own parts."""

    def __init__(self, function: Callable, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, activation: object) -> object:
        return self.function(self, activation)


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def classifier() -> nn.Linear:
    return nn.Linear(WIDTH, 10)


def model(name: str, *builders: Callable[[], nn.Module]) -> LayeredModel:
    layers = tuple(Layer(f"part{index}", build) for index, build in enumerate(builders))
    return LayeredModel(name, layers, cross_entropy, count_correct)


def entry() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH))


def padded() -> nn.Module:
    def pad(self: Calls, x: Tensor) -> Tensor:
        return self.inner(functional.pad(x, (0, WIDTH - x.shape[1])))

    return Calls(pad, inner=linear())


def random_draws(shape: DataShape) -> LayeredModel:
    """Draws from torch's and Python's generators, in layers and in parts of layers."""

    def drop(self: Calls, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.3, self.training) * (random.random() if self.training else 1)

    return model(
        "random",
        entry,
        lambda: nn.Sequential(nn.Dropout(0.2), nn.RReLU(), linear()),
        lambda: Calls(drop),
        lambda: nn.Sequential(nn.BatchNorm1d(WIDTH), classifier()),
    )


def nothing_learns_first(shape: DataShape) -> LayeredModel:
    """A first stage without parameters, and one whose parameters are frozen."""

    def frozen() -> nn.Module:
        return nn.Linear(64, WIDTH).requires_grad_(False)

    return model("frozen", nn.Flatten, frozen, linear, classifier)


def detached(shape: DataShape) -> LayeredModel:
    """A layer takes nothing from its input that could be learned from."""
    return model(
        "detached",
        entry,
        linear,
        lambda: Calls(lambda self, x: self.inner(x.detach()), inner=linear()),
        classifier,
    )


def unused(shape: DataShape) -> LayeredModel:
    """One parameter is never used, one by some micro-batches; a tensor is handed on for nobody."""

    def some(self: Calls, x: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.seldom if bool(x.sum() > 0) else self.often
        return chosen(x), x * self.unread

    return model(
        "unused",
        entry,
        lambda: Calls(
            some,
            seldom=linear(),
            often=linear(),
            never=linear(),
            unread=nn.Parameter(torch.ones(WIDTH)),
        ),
        lambda: Calls(lambda self, parts: self.inner(parts[0]), inner=linear()),
        classifier,
    )


def anything(shape: DataShape) -> LayeredModel:
    """All types and shapes cross every boundary, and are looked at behind it."""

    def spread(self: Calls, x: Tensor) -> dict:
        return {
            "hidden": self.inner(x.flatten(1)),
            "large": torch.arange(len(x)) + 2**24 + 1,
            "positions": [torch.ones(3, 3).tril().bool(), None, 0.1],
            "scalar": x.mean().double(),
            "nothing": torch.zeros(len(x), 0),
            "spectrum": torch.fft.fft(x.flatten(1)[:, :WIDTH]),
            "half": self.scale.half(),
        }

    def gather(self: Calls, parts: dict) -> dict:
        odd = (parts["large"] % 2).float()[:, None]
        mask, nothing, tenth = parts["positions"]
        assert nothing is None
        hidden = self.inner(parts["hidden"]) + odd * tenth * mask.sum()
        hidden = hidden + parts["scalar"].float() + parts["spectrum"].imag * self.scale
        return {**parts, "hidden": hidden * parts["half"].float()}

    def scale() -> nn.Parameter:
        return nn.Parameter(torch.tensor(0.5))

    return model(
        "anything",
        lambda: Calls(spread, inner=nn.Linear(64, WIDTH), scale=scale()),
        lambda: Calls(gather, inner=linear(), scale=scale()),
        lambda: Calls(gather, inner=linear(), scale=scale()),
        lambda: Calls(lambda self, parts: self.inner(parts["hidden"]), inner=classifier()),
    )


def auxiliary(shape: DataShape) -> LayeredModel:
    """What crosses in training is not what crosses in evaluation."""

    def auxiliary(self: Calls, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return (self.inner(x), self.other(x)) if self.training else self.inner(x)

    def joined(self: Calls, x: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return self.inner(x if isinstance(x, Tensor) else x[0] + x[1])

    return model(
        "auxiliary",
        entry,
        lambda: Calls(auxiliary, inner=linear(), other=linear()),
        lambda: Calls(joined, inner=linear()),
        classifier,
    )


def mixed_types(shape: DataShape) -> LayeredModel:
    """Parameters of every type, some without dimensions or without elements."""

    def inside(self: Calls, x: Tensor) -> Tensor:
        return self.inner(x.to(self.inner.weight.dtype)).float() * self.scale

    def of(dtype: torch.dtype) -> Calls:
        scale = nn.Parameter(torch.tensor(1.5, dtype=dtype))
        return Calls(inside, inner=linear().to(dtype), scale=scale)

    def spectral(self: Calls, x: Tensor) -> Tensor:
        return (x * self.phase).abs().relu_()

    return model(
        "types",
        entry,
        lambda: of(torch.float64),
        lambda: of(torch.bfloat16),
        lambda: of(torch.float16),
        lambda: nn.Sequential(
            nn.ReLU(inplace=True),
            Calls(
                spectral,
                phase=nn.Parameter(torch.randn(WIDTH, dtype=torch.complex64)),
                empty=nn.Parameter(torch.zeros(0)),
            ),
        ),
        classifier,
    )


def varying(shape: DataShape) -> LayeredModel:
    """The width that crosses behind the second layer depends on the samples."""

    def shortened(self: Calls, x: Tensor) -> Tensor:
        return x[:, : 4 + int(x.abs().sum() * 100) % 8]

    return model(
        "varying",
        entry,
        lambda: Calls(shortened),
        padded,
        classifier,
    )


def later_varying(shape: DataShape) -> LayeredModel:
    """The same, but only once it has been trained for a while."""

    def shortened(self: Calls, x: Tensor) -> Tensor:
        self.calls += self.training
        return x[:, : WIDTH - int(self.calls > 2)]

    def build() -> nn.Module:
        layer = Calls(shortened)
        layer.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        return layer

    return model(
        "later",
        entry,
        build,
        padded,
        classifier,
    )


def twice_the_same(shape: DataShape) -> LayeredModel:
    """One tensor crosses as two, each of which is used more than once."""

    def thrice(self: Calls, parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, skip = parts
        summed = self.first(hidden) + self.second(hidden).tanh() * skip + skip.sin()
        return summed, summed

    def build() -> nn.Module:
        return Calls(thrice, first=linear(), second=linear())

    return model(
        "twice",
        lambda: Calls(lambda self, x: (self.inner(x),) * 2, inner=entry()),
        build,
        build,
        lambda: Calls(lambda self, parts: self.inner(parts[0] * parts[1]), inner=classifier()),
    )


def nothing_reaches_the_loss(shape: DataShape) -> LayeredModel:
    """All that could learn is in front of a layer that hands on no gradient."""

    def frozen() -> nn.Module:
        return classifier().requires_grad_(False)

    return model("lost", entry, linear, lambda: Calls(lambda self, x: x.detach()), frozen)


def sparse_gradients(shape: DataShape) -> LayeredModel:
    """An embedding with sparse gradients, of which a batch uses a part."""

    def looked_up(self: Calls, x: Tensor) -> Tensor:
        return self.table((x.flatten(1) * 4).long().clamp(0, 9)).mean(1)

    return model(
        "sparse",
        lambda: Calls(looked_up, table=nn.Embedding(12, WIDTH, sparse=True)),
        linear,
        linear,
        classifier,
    )


def later_unused(shape: DataShape) -> LayeredModel:
    """A parameter is used by the first micro-batch of a training alone."""

    def once(self: Calls, x: Tensor) -> Tensor:
        self.calls += self.training
        return x * self.scale if self.calls < 2 else x

    def build() -> nn.Module:
        layer = Calls(once, scale=nn.Parameter(torch.tensor(2.0)))
        layer.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        return layer

    return model("once", entry, build, linear, classifier)


def later_unused_matrix(shape: DataShape) -> LayeredModel:
    """A layer's matrix is used by the first micro-batch of rank 1, and by all of rank 0."""

    def seldom(self: Calls, x: Tensor) -> Tensor:
        self.calls += self.training
        second = torch.distributed.get_rank() == 1
        return x if second and self.calls > 1 else self.inner(x)

    def build() -> nn.Module:
        layer = Calls(seldom, inner=linear())
        layer.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        return layer

    return model("once", entry, build, linear, classifier)
