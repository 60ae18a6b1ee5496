"""A data set held in memory: its shape, its training and test part, and the order of an epoch."""

from dataclasses import dataclass
from operator import index
from typing import SupportsIndex

import torch
from torch import Tensor

from hpc_lpm.errors import InputError

KINDS = {
    "image": "uint8 or floating-point inputs of any shape",
    "text": "integer inputs, the indices of tokens",
}
"""The kinds of data, and what the inputs of each are."""

_SAMPLES_AT_ONCE = 4096


@dataclass(frozen=True)
class DataShape:
    """What a model must know of the data.

    `kind` is "image" (`input_shape` is channels, height, width, or any other shape that the model
    takes) or "text" (`input_shape` is the length of the sequence, inputs are token indices);
    `classes` is the number of classes or the size of the vocabulary.

    Raises:
        InputError: if the kind is unknown or a size is not a whole number from 1.
    """

    kind: str
    input_shape: tuple[int, ...]
    classes: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            kinds = ", ".join(f"{kind!r} ({inputs})" for kind, inputs in KINDS.items())
            raise InputError(f"the kind of data is {self.kind!r}, accepted are {kinds}.")
        # Sizes may be given as numpy's integers or as torch.Size.
        try:
            sizes = tuple(_size(size) for size in self.input_shape)
        except (TypeError, ValueError):
            raise InputError(
                f"the shape of one input is {self.input_shape!r}, accepted are whole numbers from "
                "1 without the number of samples, such as (1, 28, 28)."
            ) from None
        try:
            classes = _size(self.classes)
        except (TypeError, ValueError):
            raise InputError(
                f"the number of classes is {self.classes!r}, accepted is a whole number from 1: "
                "count the different targets, or the tokens of the vocabulary."
            ) from None
        object.__setattr__(self, "input_shape", sizes)
        object.__setattr__(self, "classes", classes)


class Split:
    """The training or the test part: raw inputs [n, ...] and integer targets [n, ...].

    Images are kept as bytes (uint8, 0 to 255) and normalised a micro-batch at a time: `mean` and
    `std` are those of the training images scaled to 0..1. Floating-point inputs are taken as they
    are; tokens are kept as integers of any other type.

    Raises:
        InputError: if inputs or targets are no tensors, differ in their number of samples, or the
            targets are not integers.
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, mean: float = 0.0, std: float = 1.0
    ) -> None:
        for what, given in (("inputs", inputs), ("targets", targets)):
            if not isinstance(given, Tensor) or given.dim() == 0:
                raise InputError(
                    f"the {what} of a split are {type(given).__name__}, accepted is a torch.Tensor "
                    "[n, ...]: convert them, for example with torch.from_numpy."
                )
        if len(inputs) != len(targets):
            raise InputError(
                f"a split has {len(inputs)} inputs and {len(targets)} targets: give one target "
                "for each input."
            )
        if targets.is_floating_point() or targets.is_complex():
            raise InputError(
                f"the targets of a split are {_name(targets.dtype)}, accepted are integers, the "
                "indices of classes or tokens: convert them with .long()."
            )
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
        return chosen.to(torch.float32 if chosen.is_floating_point() else torch.int64)

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


def check_dataset(dataset: Dataset, name: str) -> None:
    """Check that both parts hold what the data set's shape says; `name` is used in messages.

    Raises:
        InputError: if a part is empty or no `Split`, or if inputs have another shape or kind, or
            targets or tokens are not in 0 to classes - 1.
    """
    if not isinstance(dataset.shape, DataShape):
        raise InputError(
            f"the shape of data set {name!r} is {type(dataset.shape).__name__}, accepted is a "
            'DataShape such as DataShape("image", (1, 28, 28), 10).'
        )
    for part, split in (("training", dataset.train), ("test", dataset.test)):
        where = f"the {part} part of data set {name!r}"
        if not isinstance(split, Split):
            raise InputError(
                f"{where} is {type(split).__name__}, accepted is Split(inputs, targets)."
            )
        if len(split) == 0:
            raise InputError(f"{where} is empty: put at least one sample into it.")
        _check_split(split, dataset.shape, where)


def require_images(model: str, shape: DataShape, least_size: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width) of the data that `model` is to be made for.

    Raises:
        InputError: if the data are not images or either side is below `least_size` pixels.
    """
    if shape.kind != "image" or len(shape.input_shape) != 3:
        raise InputError(
            f"{model} takes images (channels, height, width), the data set holds {shape.kind} of "
            f"shape {shape.input_shape}: choose another model or data set."
        )
    channels, height, width = shape.input_shape
    if min(height, width) < least_size:
        raise InputError(
            f"{model} takes images of at least {least_size}x{least_size} pixels, the data set's "
            f"have {height}x{width}: choose a larger image size."
        )
    return channels, height, width


def epoch_order(samples: int, seed: int, epoch: int) -> Tensor:
    """Return the order of one epoch, int64 [samples]: a function of (seed, epoch) alone."""
    generator = torch.Generator()
    generator.manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(samples, generator=generator)


def _check_split(split: Split, shape: DataShape, where: str) -> None:
    first = split.inputs(torch.tensor([0]))
    if tuple(first.shape[1:]) != shape.input_shape:
        raise InputError(
            f"{where} has inputs of shape {tuple(first.shape[1:])}, its DataShape says "
            f"{shape.input_shape}: make the two equal."
        )
    if first.is_floating_point() != (shape.kind == "image"):
        found = "floating-point numbers" if first.is_floating_point() else "integers"
        raise InputError(
            f"{where} has {found} as inputs, accepted for kind {shape.kind!r} are "
            f"{KINDS[shape.kind]}: convert them or change the kind."
        )
    for indices in torch.split(torch.arange(len(split)), _SAMPLES_AT_ONCE):
        _check_range(split.targets(indices), shape.classes, f"{where} has the target")
        if shape.kind == "text":
            _check_range(split.inputs(indices), shape.classes, f"{where} has the token")


def _check_range(values: Tensor, classes: int, found: str) -> None:
    for value in (int(values.min()), int(values.max())):
        if not 0 <= value < classes:
            raise InputError(
                f"{found} {value}, accepted for {classes} classes are 0 to {classes - 1}: number "
                "them from 0, or correct the classes of its DataShape."
            )


def _size(value: SupportsIndex) -> int:
    if isinstance(value, bool) or index(value) < 1:
        raise ValueError(value)
    return index(value)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
