"""Models of one's own with what people bring: every row of the table of peculiarities."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpc_lpm.data.dataset import DataShape

INPUTS, WIDTH, CLASSES = 64, 12, 10


class Flat(nn.Module):
    """Linear on flattened images: something that learns, for the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.linear(images.flatten(1)))


def head() -> nn.Module:
    return nn.Linear(WIDTH, CLASSES)


def block() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())


class Apply(nn.Module):
    """Applies a function that draws at random."""

    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(self, values)


def functional_dropout(self: nn.Module, values: Tensor) -> Tensor:
    return functional.dropout(values, 0.4, self.training)


def noise(self: nn.Module, values: Tensor) -> Tensor:
    return values + 0.3 * torch.randn_like(values) if self.training else values


def stochastic_depth(self: nn.Module, values: Tensor) -> Tensor:
    if self.training and random.random() < 0.5:
        return values
    return values * (1.0 if not self.training else float(np.random.uniform(0.5, 1.5)))


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        return values * (torch.rand(values.shape, generator=self.generator) < 0.8)


class AttentionDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        tokens = self.linear(values).view(len(values), 1, 4, WIDTH // 4)
        attended = functional.scaled_dot_product_attention(
            tokens, tokens, tokens, dropout_p=0.3 if self.training else 0.0
        )
        return attended.reshape(len(values), WIDTH)


def dropout(shape: DataShape) -> list:
    return [
        Flat,
        lambda: nn.Dropout(0.4),
        block,
        nn.RReLU,
        lambda: nn.Dropout1d(0.3),
        head,
    ]


def draws(shape: DataShape) -> list:
    return [
        Flat,
        lambda: Apply(functional_dropout),
        lambda: Apply(noise),
        AttentionDropout,
        lambda: Apply(stochastic_depth),
        OwnGenerator,
        head,
    ]


def shared(shape: DataShape) -> list:
    """One module as three layers, and another module's weight as a part of a fourth."""
    once = nn.Linear(WIDTH, WIDTH)

    class Reuse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = once.weight

        def forward(self, values: Tensor) -> Tensor:
            return values + 0.1 * values @ self.weight

    return [Flat, lambda: once, nn.Tanh, lambda: once, Reuse, block, lambda: once, head]


def shared_statistics(shape: DataShape) -> list:
    norm = nn.BatchNorm1d(WIDTH)
    return [Flat, lambda: norm, block, lambda: norm, block, head]


class Counting(nn.Module):
    """Counts its passes in a buffer that it assigns anew, in an attribute and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.seen = 0
        self.sums = [torch.zeros(())]

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            self.count = self.count + 1
            self.seen += 1
            self.sums[0] += 1
        return values * (1 + 0.01 * self.count + 0.01 * self.seen + 0.01 * self.sums[0])


def counting(shape: DataShape) -> list:
    return [Flat, Counting, block, Counting, head]


class Detaching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values.detach())


def detaching(shape: DataShape) -> list:
    return [Flat, block, Detaching, block, head]


class Choosing(nn.Module):
    """Uses one of two branches, as the samples have it; a third is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])

    def forward(self, values: Tensor) -> Tensor:
        chosen = int(values.detach().sum() > 0)
        return values + torch.tanh(self.branches[chosen](values))


def choosing(shape: DataShape) -> list:
    return [Flat, Choosing, Choosing, block, head]


def nothing_to_learn(shape: DataShape) -> list:
    return [nn.Flatten, nn.Identity, lambda: nn.Linear(INPUTS, WIDTH), nn.Tanh, block, head]


def frozen(shape: DataShape) -> list:
    def frozen_layer() -> nn.Module:
        return Flat().requires_grad_(False)

    def frozen_block() -> nn.Module:
        return block().requires_grad_(False)

    return [frozen_layer, frozen_block, block, frozen_block, head]


class WithMask(nn.Module):
    """Hands on a float mask and the raw input beside the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = Flat()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.flat(images), (images.flatten(1)[:, :WIDTH] > 0.3).float(), images


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        values, mask, images = parts
        return (
            torch.tanh(self.linear(values * mask)) + images.mean((1, 2, 3))[:, None],
            mask,
            images,
        )


class MaskedHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, CLASSES)

    def forward(self, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return self.linear(parts[0] * parts[1])


def masks(shape: DataShape) -> list:
    return [WithMask, Masked, Masked, MaskedHead]


@dataclass
class Carried:
    values: Tensor
    scale: float
    extra: object = None


class Pack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flat = Flat()

    def forward(self, images: Tensor) -> dict:
        values = self.flat(images)
        return {
            "first": Carried(values, 0.5),
            "rest": [None, (torch.tensor(2**24 + 1), 3)],
            "each": torch.arange(len(values)) + 2**24 + 1,
            "square": torch.ones(4, 4, dtype=torch.bool).tril(),
            "name": "packed",
        }


class Repack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, given: dict) -> dict:
        carried = given["first"]
        big, three = given["rest"][1]
        odd = (given["each"] % 2).float()[:, None] + float(big % 2) + three
        values = torch.tanh(self.linear(carried.values)) * carried.scale
        shifted = values + 0.1 * odd + given["square"].sum()
        return {**given, "first": Carried(shifted, carried.scale, shifted.double())}


class Unpack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, CLASSES)

    def forward(self, given: dict) -> Tensor:
        return self.linear(given["first"].values + given["first"].extra.float())


def structures(shape: DataShape) -> list:
    return [Pack, Repack, Repack, Repack, Unpack]


class Varying(nn.Module):
    """Keeps as many columns as the samples have it, and says how many."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> tuple[Tensor, float]:
        kept = 3 + int(values.detach().abs().sum() * 1000) % (WIDTH - 3)
        made = torch.tanh(self.linear(values))
        return made[:, :kept], float(kept)


class Filling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, given: tuple[Tensor, float]) -> Tensor:
        values, kept = given
        return self.linear(functional.pad(values, (0, WIDTH - values.shape[1]))) / kept


def varying(shape: DataShape) -> list:
    return [Flat, Varying, Filling, Varying, Filling, head]


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, WIDTH, sparse=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.embedding((images.flatten(1) * 16).long().clamp(0, 16)).mean(1)


def sparse(shape: DataShape) -> list:
    return [Sparse, block, block, head]


class Halves(nn.Module):
    """Computes in half precision inside, with weights of its own in half precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH).to(dtype)
        self.dtype = dtype

    def forward(self, values: Tensor) -> Tensor:
        return torch.tanh(self.linear(values.to(self.dtype)))


class Back(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.float()


def halves(shape: DataShape) -> list:
    return [
        Flat,
        lambda: Halves(torch.bfloat16),
        lambda: Halves(torch.float64),
        Back,
        head,
    ]


class Derived(nn.Module):
    """Computes with something that it computes from its weights: masked, and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) / 3)
        self.register_buffer("mask", torch.ones(WIDTH, WIDTH).tril())
        self.normalised = torch.nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def forward(self, values: Tensor) -> Tensor:
        return torch.tanh(self.normalised(values @ (self.weight * self.mask)))


def derived(shape: DataShape) -> list:
    return [Flat, Derived, lambda: nn.Dropout(0.2), Derived, head]


class TwoOutputs(nn.Module):
    """Returns more in training than in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        made = torch.tanh(self.linear(values))
        return (made, values) if self.training else made


class OneOfTwo(nn.Module):
    def forward(self, given: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return given if isinstance(given, Tensor) else given[0] + 0.0 * given[1]


def modes(shape: DataShape) -> list:
    return [Flat, TwoOutputs, OneOfTwo, block, head]


class AffineMixing(nn.Module):
    """Scales a transposed tensor, so that a gradient lies otherwise in memory than its tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(WIDTH))
        self.mix = nn.Linear(4, 4)

    def forward(self, values: Tensor) -> Tensor:
        scaled = values * self.scale
        return values + self.mix(scaled.mT).mT


class Spread(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values[:, None, :] * torch.arange(1, 5)[None, :, None]


class Gathered(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values.mean(1)


def layouts(shape: DataShape) -> list:
    return [Flat, Spread, AffineMixing, AffineMixing, Gathered, head]


def in_place(shape: DataShape) -> list:
    return [
        lambda: nn.Threshold(0.2, 0.0, inplace=True),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, WIDTH)),
        lambda: nn.ReLU(inplace=True),
        lambda: nn.Linear(WIDTH, WIDTH),
        lambda: nn.Dropout(0.2, inplace=True),
        lambda: nn.LeakyReLU(inplace=True),
        head,
    ]


class Meter:
    """An object that a layer keeps, and that counts."""

    def __init__(self) -> None:
        self.total = torch.zeros(())
        self.passes = 0


class Adapting(nn.Module):
    """Scales by a buffer that passes change in place and graphs keep, and by a meter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("scale", torch.ones(WIDTH))
        self.meter = Meter()

    def forward(self, values: Tensor) -> Tensor:
        made = torch.tanh(self.linear(values))
        if self.training:
            self.scale.mul_(0.9).add_(0.1 * made.detach().abs().mean(0))
            self.meter.total += 1
            self.meter.passes += 1
        return made * self.scale[None] * (1 + 0.01 * self.meter.total + 0.01 * self.meter.passes)


def adapting(shape: DataShape) -> list:
    return [Flat, Adapting, block, Adapting, head]


def pooled(shape: DataShape) -> list:
    """A gradient that is one number for all pixels reaches a normalisation over a cut."""

    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(1, WIDTH, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            return self.convolution(images)

    class Pool(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    return [Stem, lambda: nn.BatchNorm2d(WIDTH), Pool, block, head]


LAYERS = {
    **{"dropout": 6, "draws": 7, "shared": 8, "shared_statistics": 4, "counting": 5},
    **{"detaching": 5, "choosing": 5, "nothing_to_learn": 6, "frozen": 5, "masks": 4},
    **{"structures": 5, "varying": 6, "sparse": 4, "halves": 5, "derived": 5, "modes": 5},
    **{"layouts": 6, "in_place": 7, "adapting": 5, "pooled": 5},
}
"""The models by name, with their numbers of layers."""
