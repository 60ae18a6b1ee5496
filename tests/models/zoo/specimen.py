"""One architecture of the zoo, as a small instance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 4
CLASSES = 10
IMAGE_SIZE = 32
VOCABULARY = 64
SEQUENCE = 12
SPECIAL = 3
"""Tokens below this one pad, begin and end a text."""


@dataclass(frozen=True)
class Specimen:
    """An architecture: what builds it, what it takes, what it should answer, and its loss.

    `inputs(samples)` and `targets(samples)` return the same on every call.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Any]
    targets: Callable[[int], Tensor]
    loss: Callable[[Any, Tensor], Tensor]


def images(samples: int, size: int = IMAGE_SIZE) -> Tensor:
    return torch.randn(samples, 3, size, size, generator=_generator(samples))


def labels(samples: int) -> Tensor:
    return torch.arange(samples) % CLASSES


def tokens(samples: int, sequence: int = SEQUENCE) -> Tensor:
    shape = (samples, sequence)
    return torch.randint(SPECIAL, VOCABULARY, shape, generator=_generator(samples))


def next_tokens(samples: int) -> Tensor:
    return tokens(samples, SEQUENCE + 1)[:, 1:].contiguous()


def pixel_labels(samples: int) -> Tensor:
    shape = (samples, IMAGE_SIZE, IMAGE_SIZE)
    return torch.randint(CLASSES, shape, generator=_generator(samples))


def class_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of outputs [n, ..., classes]."""
    return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def pixel_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of outputs [n, classes, height, width]."""
    return nn.functional.cross_entropy(outputs, targets)


def of_images(name: str, build: Callable[[], nn.Module], family: str = "classifier") -> Specimen:
    return Specimen(name, family, build, images, labels, class_loss)


def of_pixels(name: str, build: Callable[[], nn.Module]) -> Specimen:
    return Specimen(name, "dense prediction", build, images, pixel_labels, pixel_loss)


def of_next_tokens(name: str, build: Callable[[], nn.Module], family: str) -> Specimen:
    return Specimen(name, family, build, tokens, next_tokens, class_loss)


def of_texts(name: str, build: Callable[[], nn.Module], family: str = "text") -> Specimen:
    return Specimen(name, family, build, tokens, labels, class_loss)


def _generator(samples: int) -> torch.Generator:
    return torch.Generator().manual_seed(1000 + samples)
