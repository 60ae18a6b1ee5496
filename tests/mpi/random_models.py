"""Models made of pieces: `random_models:made,pieces=ldbm`, a letter for each layer in between.

What flows is a dictionary that every piece takes and returns; `PIECES` says what each letter is.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpc_lpm.data.dataset import DataShape

WIDTH, CLASSES = 8, 10
Carrier = dict[str, Any]


@dataclass
class Extra:
    values: Tensor
    scale: float
    nothing: object = None


class Opening(nn.Module):
    """Packs what the pieces use; it has nothing to learn."""

    def forward(self, images: Tensor) -> Carrier:
        rows = images.flatten(1)[:, : WIDTH * WIDTH].unflatten(1, (WIDTH, WIDTH))
        count = len(images)
        return {
            "values": rows.mean(2),
            "mask": (rows.amax(2) > rows.amax() / 2).float(),
            "numbers": torch.arange(count) + 2**24 + 1,
            "total": torch.tensor(2**24 + 1),
            "skips": [],
            "extra": None,
            "size": 3 + (images.sum() * 100).long() % (WIDTH - 3),
            "pooled": None,
            "parts": None,
        }


class Closing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, CLASSES)

    def forward(self, given: Carrier) -> Tensor:
        return self.linear(given["values"])


class Piece(nn.Module):
    """Changes the values alone, mostly."""

    def forward(self, given: Carrier) -> Carrier:
        return {**given, "values": self.changed(given["values"])}

    def changed(self, values: Tensor) -> Tensor:
        raise NotImplementedError


class Learning(Piece):
    """A residual block: the values are used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def changed(self, values: Tensor) -> Tensor:
        return values + torch.tanh(self.linear(values))


class Frozen(Learning):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Dropping(Piece):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.3)

    def changed(self, values: Tensor) -> Tensor:
        return self.dropout(values)


class Noise(Piece):
    """Draws from all generators: torch's, Python's, NumPy's and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def changed(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        own = torch.rand(values.shape, generator=self.generator)
        scale = 0.1 * random.random() + 0.1 * float(np.random.uniform())
        return values + scale * functional.dropout(torch.randn_like(values), 0.5) * own


class Normalising(Piece):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(WIDTH)

    def changed(self, values: Tensor) -> Tensor:
        return self.norm(values)


class Branching(Piece):
    """Uses one of two branches, as the samples have it; a third is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])

    def changed(self, values: Tensor) -> Tensor:
        chosen = int(values.detach().sum() > 0)
        return values + torch.tanh(self.branches[chosen](values))


class Masking(nn.Module):
    """Uses a float mask, and hands on another one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, given: Carrier) -> Carrier:
        values, mask = given["values"], given["mask"]
        return {**given, "values": self.linear(values * mask), "mask": 1 - 0.5 * mask}


class Counting(nn.Module):
    """Computes with large whole numbers, which it hands on increased."""

    def forward(self, given: Carrier) -> Carrier:
        odd = (given["numbers"] % 2).float()[:, None] + (given["total"] % 3).float()
        return {
            **given,
            "values": given["values"] * (1 + 0.1 * odd),
            "numbers": given["numbers"] + 1,
            "total": given["total"] + 3,
        }


class Pushing(nn.Module):
    def forward(self, given: Carrier) -> Carrier:
        return {**given, "skips": [*given["skips"], given["values"]]}


class Popping(nn.Module):
    """Adds what was pushed last, if anything was."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, given: Carrier) -> Carrier:
        if not given["skips"]:
            return given
        *others, last = given["skips"]
        return {**given, "values": self.linear(given["values"]) + 0.5 * last, "skips": others}


class Detaching(Piece):
    """The gradient takes one of two ways, and stops in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def changed(self, values: Tensor) -> Tensor:
        return self.linear(values.detach())


class Remembering(Piece):
    """Counts its passes in a buffer assigned anew, in one changed in place and in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.seen = 0
        self.sums = [torch.zeros(())]

    def changed(self, values: Tensor) -> Tensor:
        if self.training:
            self.count = self.count + 1
            self.mean.mul_(0.9).add_(values.detach().mean(0), alpha=0.1)
            self.seen += 1
            self.sums[0] += 1
        return (values - self.mean) * (1 + 0.01 * (self.count + self.seen + self.sums[0]))


class Halved(Piece):
    """Computes in another precision, with weights of that precision."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH).bfloat16()

    def changed(self, values: Tensor) -> Tensor:
        return torch.tanh(self.linear(values.bfloat16())).float()


class Plain(Piece):
    def changed(self, values: Tensor) -> Tensor:
        return torch.tanh(values)


class Derived(Piece):
    """Computes with something that it computes from its weights, and remembers how often."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH) / 3)
        self.register_buffer("kept", torch.ones(WIDTH, WIDTH).tril())
        self.register_buffer("count", torch.zeros(()))
        self.normalised = torch.nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def changed(self, values: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        dropped = functional.dropout(values @ (self.weight * self.kept), 0.2, self.training)
        return torch.tanh(self.normalised(dropped)) + values * (1 + 0.01 * self.count)


class Resizing(nn.Module):
    """Makes a tensor whose size depends on the samples, and uses one that was made before."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, given: Carrier) -> Carrier:
        values, pooled = given["values"], given["pooled"]
        if pooled is not None:
            values = values + functional.pad(pooled, (0, WIDTH - pooled.shape[1]))
        return {**given, "values": values, "pooled": self.linear(values)[:, : given["size"]]}


class Embedding(Piece):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, WIDTH, sparse=True)

    def changed(self, values: Tensor) -> Tensor:
        indices = (values.detach() * 3).long().clamp(0, 5)
        return values + self.embedding(indices).mean(1)


class Wrapping(nn.Module):
    """Hands a dataclass on, and uses the one that was handed on before."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, given: Carrier) -> Carrier:
        values, extra = given["values"], given["extra"]
        if extra is not None:
            values = values + extra.values.float() * extra.scale
        made = torch.tanh(self.linear(values))
        return {**given, "values": made, "extra": Extra(values.double(), 0.25)}


class Skipping(Learning):
    """Stochastic depth: in training it learns from every second micro-batch or so."""

    def changed(self, values: Tensor) -> Tensor:
        return values if self.training and random.random() < 0.5 else super().changed(values)


class Arranging(nn.Module):
    """Hands on tensors that are transposed, have gaps or repeat their memory."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, given: Carrier) -> Carrier:
        values = given["values"]
        if given["parts"] is not None:
            turned, halves, mean = given["parts"]
            values = values + torch.cat([halves, halves], 1) + mean + turned.t()
        made = self.linear(values)
        parts = made.t(), made[:, ::2], made.mean(1, keepdim=True).expand(-1, WIDTH)
        return {**given, "values": made, "parts": parts}


class Sharing(Piece):
    """Its linear module is that of all others."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def changed(self, values: Tensor) -> Tensor:
        return values + torch.tanh(self.linear(values))


class SharingAtTimes(Sharing):
    """Uses the shared module at random: in some steps nobody does."""

    def changed(self, values: Tensor) -> Tensor:
        return values if self.training and random.random() < 0.6 else super().changed(values)


class Reusing(Piece):
    """Has the weight of the shared module, for another purpose."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def changed(self, values: Tensor) -> Tensor:
        return values + 0.1 * values @ self.weight


PIECES: dict[str, type[nn.Module]] = {
    "a": Wrapping,
    "b": Normalising,
    "c": Remembering,
    "d": Dropping,
    "e": Embedding,
    "f": Frozen,
    "g": Derived,
    "h": Halved,
    "i": Counting,
    "k": Skipping,
    "l": Learning,
    "m": Masking,
    "n": Noise,
    "o": Popping,
    "p": Pushing,
    "t": Detaching,
    "u": Branching,
    "v": Resizing,
    "x": Plain,
    "y": Arranging,
}
SHARED = "qsw"
"""Pieces of which those of one model have a module, or a weight, together."""


def made(shape: DataShape, pieces: str) -> list[Callable[[], nn.Module]]:
    shared = nn.Linear(WIDTH, WIDTH)
    makers: dict[str, Callable[[], nn.Module]] = {
        **PIECES,
        "q": lambda: SharingAtTimes(shared),
        "s": lambda: Sharing(shared),
        "w": lambda: Reusing(shared.weight),
    }
    return [Opening, *(makers[piece] for piece in pieces), Closing]
