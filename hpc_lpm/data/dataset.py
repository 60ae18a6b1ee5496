"""A data set: its shape, its parts, the samples of a part, and the order of an epoch."""

from dataclasses import dataclass, field
from operator import index
from typing import SupportsIndex

import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.data.samples import Samples
from hpc_lpm.data.samples import Split as Split  # noqa: PLC0414 (users take it from here)
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
