"""A data set: its shape, its parts, the samples of a part, and the order of an epoch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import index
from typing import SupportsIndex

import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.errors import InputError
from hpc_lpm.random_streams import torch_seed

KINDS = {
    "image": "uint8 or floating-point inputs of any shape",
    "text": "integer inputs, the indices of tokens",
    "other": "inputs of any other kind, such as a dictionary of tensors",
}
"""The kinds of data, and what the inputs of each are."""

CLASSES, NEXT_TOKEN = "classes", "next-token"
MULTI_LABEL, REGRESSION, OWN = "multi-label", "regression", "own"

TASKS = {
    CLASSES: "integer targets, the indices of classes",
    NEXT_TOKEN: "integer targets, the token that follows each token of the inputs",
    MULTI_LABEL: "floating-point targets [n, classes] of 0 and 1",
    REGRESSION: "floating-point targets",
    OWN: "targets of any other kind, which a loss of your own takes",
}
"""What is to be learnt, and what the targets of each task are."""


@dataclass(frozen=True)
class DataShape:
    """What a model must know of the data.

    `kind` is "image" (`input_shape` is channels, height, width, or any other shape that the model
    takes), "text" (`input_shape` is the length of the sequence, inputs are token indices) or
    "other", where `example` is the inputs of a few samples and `input_shape` may be empty.
    `classes` is the number of classes, labels or numbers that a model is to return for a sample.
    `task` is one of `TASKS`, for text "next-token" and else "classes" unless it is given;
    `vocabulary` is the number of different tokens of text, `classes` unless it is given.

    Raises:
        InputError: if the kind or the task is unknown, or a size is not a whole number from 1.
    """

    kind: str
    input_shape: tuple[int, ...]
    classes: int
    task: str = ""
    vocabulary: int = 0
    example: Activation = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.task:
            object.__setattr__(self, "task", NEXT_TOKEN if self.kind == "text" else CLASSES)
        if self.task not in TASKS:
            tasks = ", ".join(f"{task!r} ({targets})" for task, targets in TASKS.items())
            raise InputError(f"the task of data is {self.task!r}, accepted are {tasks}.")
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
        object.__setattr__(self, "vocabulary", self.vocabulary or classes)


@dataclass(frozen=True)
class Draws:
    """What random changes of training samples are drawn from: they are a function of these alone.

    A sample's numbers depend on (seed, epoch, index of the sample), whoever loads it and when.
    """

    seed: int
    epoch: int


@dataclass(frozen=True)
class Moments:
    """Means and standard deviations of images scaled to 0..1, one for all channels or one each."""

    means: list[float]
    deviations: list[float]

    @staticmethod
    def by(mean: float | Tensor, deviation: float | Tensor) -> "Moments":
        """Return those that are given as numbers or as tensors [channels, 1, 1]."""
        means, deviations = (
            torch.as_tensor(each).reshape(-1).tolist() for each in (mean, deviation)
        )
        return Moments(means, deviations)


class Samples(ABC):
    """One part of a data set: numbered samples, of which micro-batches are made.

    Attributes:
        in_order: True if samples can only be had one after the other; epochs are not shuffled then.
    """

    in_order: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the model's inputs for these samples, in this order: tensors [n, ...].

        Args:
            indices: int64 [n], numbers of samples.
            draws: what training samples are changed at random by; None in evaluation.
        """

    @abstractmethod
    def targets(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the targets of these samples, in this order: tensors [n, ...]; see `inputs`."""

    @property
    def moments(self) -> Moments | None:
        """What images that are kept as bytes are normalised by; None of any other samples."""
        return None

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel of the images, scaled to 0..1.

        Raises:
            InputError: if these samples are no images that are kept as bytes.
        """
        raise InputError(
            "--normalize was given, but the inputs of this data set are not images kept as bytes: "
            "leave it out, and normalise where the samples are made."
        )

    def normalized(self, mean: Sequence[float], std: Sequence[float]) -> "Samples":
        """Return the same images, normalised by these means and deviations, one a channel.

        Raises:
            InputError: if these samples are no images that are kept as bytes.
        """
        raise InputError(
            "--normalize was given, but the inputs of this data set are not images kept as bytes: "
            "leave it out, and normalise where the samples are made."
        )


class Split(Samples):
    """Samples in memory: raw inputs [n, ...] and targets [n, ...].

    Images are kept as bytes (uint8, 0 to 255) and normalised a micro-batch at a time: `mean` and
    `std` are those of the training images scaled to 0..1, as numbers or as tensors [channels, 1,
    1]. Floating-point inputs are taken as they are; tokens are kept as integers of any other type.

    Raises:
        InputError: if inputs or targets are no tensors, or differ in their number of samples.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        mean: float | Tensor = 0.0,
        std: float | Tensor = 1.0,
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
        if targets.is_complex():
            raise InputError(
                f"the targets of a split are {_name(targets.dtype)}, accepted are integers and "
                "floating-point numbers: convert them."
            )
        self._inputs = inputs
        self._targets = targets
        self._mean = mean
        self._std = std

    def __len__(self) -> int:
        return len(self._inputs)

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Tensor:
        """Return the model inputs of these samples: float32 images or int64 tokens."""
        chosen = self._inputs[indices]
        if chosen.dtype == torch.uint8:
            return chosen.to(torch.float32).div_(255.0).sub_(self._mean).div_(self._std)
        return chosen.to(torch.float32 if chosen.is_floating_point() else torch.int64)

    def targets(self, indices: Tensor, draws: Draws | None = None) -> Tensor:
        """Return the targets of these samples: int64 or float32."""
        chosen = self._targets[indices]
        return chosen.to(torch.float32 if chosen.is_floating_point() else torch.int64)

    @property
    def moments(self) -> Moments | None:
        """What images that are kept as bytes are normalised by."""
        if self._inputs.dtype != torch.uint8 or self._inputs.dim() != 4:
            return None
        return Moments.by(self._mean, self._std)

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel of the images, scaled to 0..1."""
        if self._inputs.dtype != torch.uint8 or self._inputs.dim() != 4:
            return super().channel_statistics()
        means, deviations = [], []
        levels = torch.arange(256, dtype=torch.float64) / 255.0
        for channel in self._inputs.unbind(1):
            counts = torch.bincount(channel.flatten(), minlength=256).to(torch.float64)
            mean = float((counts * levels).sum() / counts.sum())
            means.append(mean)
            deviations.append(float(((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt()))
        return means, deviations

    def normalized(self, mean: Sequence[float], std: Sequence[float]) -> "Samples":
        """Return the same images, normalised by these means and deviations, one a channel."""
        if self._inputs.dtype != torch.uint8:
            return super().normalized(mean, std)
        # A channel of one colour has no deviation to divide by.
        shape = (-1, 1, 1)
        safe = torch.tensor([value or 1.0 for value in std]).view(shape)
        return Split(self._inputs, self._targets, torch.tensor(mean).view(shape), safe)


class Subset(Samples):
    """Some samples of a part, in an order of their own.

    Args:
        samples: the whole part.
        indices: int64 [n], the numbers of the chosen samples there.
    """

    def __init__(self, samples: Samples, indices: Tensor) -> None:
        self._samples = samples
        self._indices = indices
        self.in_order = samples.in_order

    def __len__(self) -> int:
        return len(self._indices)

    def inputs(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the model inputs of these samples."""
        return self._samples.inputs(self._indices[indices], draws)

    def targets(self, indices: Tensor, draws: Draws | None = None) -> Activation:
        """Return the targets of these samples."""
        return self._samples.targets(self._indices[indices], draws)

    @property
    def moments(self) -> Moments | None:
        """What the images of the whole part are normalised by."""
        return self._samples.moments

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and deviation of each channel over the whole part."""
        return self._samples.channel_statistics()

    def normalized(self, mean: Sequence[float], std: Sequence[float]) -> Samples:
        """Return the same images, normalised by these means and deviations, one a channel."""
        return Subset(self._samples.normalized(mean, std), self._indices)


@dataclass(frozen=True)
class Dataset:
    """A named data set: its training and test part, and a validation part if it has one.

    `class_names` are the classes in the order of their indices, empty where nobody named them.
    `skipped` tells which files were left out, each with the reason in brackets.
    """

    name: str
    shape: DataShape
    train: Samples
    test: Samples
    validation: Samples | None = None
    class_names: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, Samples]:
        """The parts that there are, by name."""
        validation = {} if self.validation is None else {"validation": self.validation}
        return {"training": self.train, **validation, "test": self.test}


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
    generator.manual_seed(torch_seed(seed, epoch))
    return torch.randperm(samples, generator=generator)


def _size(value: SupportsIndex) -> int:
    if isinstance(value, bool) or index(value) < 1:
        raise ValueError(value)
    return index(value)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
