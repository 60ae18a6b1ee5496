"""A data set held in memory, its splits and its deterministic order."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DataShape:
    """What a model must know of the data.

    `kind` is "image" (`input_shape` = channels, height, width) or "text" (`input_shape` = sequence
    length, inputs are token indices); `classes` is the number of classes or the vocabulary size.
    """

    kind: str
    input_shape: tuple[int, ...]
    classes: int


class Split:
    """The training or the test part: raw inputs [n, ...] and integer targets [n, ...].

    Images are kept as bytes (uint8, 0 to 255) and normalised a micro-batch at a time: `mean` and
    `std` are those of the training images scaled to 0..1. Tokens are kept as any other integers.
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, mean: float = 0.0, std: float = 1.0
    ) -> None:
        self._inputs = inputs
        self._targets = targets
        self._mean = mean
        self._std = std

    def __len__(self) -> int:
        return len(self._inputs)

    def inputs(self, indices: Tensor) -> Tensor:
        """Return the model inputs of these samples: float32 images or int64 tokens."""
        chosen = self._inputs[indices]
        if chosen.dtype == torch.uint8:
            return chosen.to(torch.float32).div_(255.0).sub_(self._mean).div_(self._std)
        return chosen if chosen.is_floating_point() else chosen.to(torch.int64)

    def targets(self, indices: Tensor) -> Tensor:
        """Return the int64 targets of these samples."""
        return self._targets[indices].to(torch.int64)


@dataclass(frozen=True)
class Dataset:
    """A named data set, split into training and test part."""

    name: str
    shape: DataShape
    train: Split
    test: Split


def epoch_order(samples: int, seed: int, epoch: int) -> Tensor:
    """Return the order of one epoch, int64 [samples]: a function of (seed, epoch) alone."""
    generator = torch.Generator()
    generator.manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(samples, generator=generator)
