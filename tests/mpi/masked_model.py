"""A user's own model whose boundaries carry a float tensor, whole numbers and truth values."""

import torch
from torch import Tensor, nn

from hpc_lpm.data.dataset import DataShape
from hpc_lpm.models.layered import Layer, LayeredModel, count_correct, cross_entropy

WIDTH = 12


class Entry(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.embedding(tokens), tokens % 5, tokens % 3 == 0


class Gated(nn.Module):
    """Adds an embedding of the numbers where the truth values say so, and hands both on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.shift = nn.Embedding(5, WIDTH)

    def forward(self, parts: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        values, numbers, chosen = parts
        shifted = values + self.shift(numbers)
        values = torch.where(chosen[..., None], shifted, torch.tanh(self.linear(values)))
        return values, numbers, chosen


class Head(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, classes)

    def forward(self, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return self.linear(parts[0])


def make(shape: DataShape) -> LayeredModel:
    layers = (
        Layer("entry", lambda: Entry(shape.classes)),
        Layer("first", Gated),
        Layer("second", Gated),
        Layer("head", lambda: Head(shape.classes)),
    )
    return LayeredModel("masked", layers, cross_entropy, count_correct)
