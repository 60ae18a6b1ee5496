"""Targets of any type as what a network is trained for: classes, several labels, or numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpc_lpm.errors import InputError

Task = Literal["classes", "multi-label", "regression"]
"""What targets are for; see `encode_targets`."""

Values = NDArray[Any]

LARGEST_NUMBER = f"{np.finfo(np.float32).max:.2g}"
"""The largest number that training computes with, for messages."""

_MANY_CLASSES = 20
"""So many classes or fewer are never doubted."""


@dataclass(frozen=True)
class EncodedTargets:
    """The targets of each part, and what a model must know of them.

    `classes` counts the classes, the labels or the outputs. `names` are the classes as the data
    call them, in the order of their indices; there are none for numbers.
    """

    task: Task
    classes: int
    parts: tuple[Tensor, ...]
    names: tuple[str, ...] = ()


def encode_targets(parts: Sequence[Values], owner: str, task: Task | None = None) -> EncodedTargets:
    """Encode the targets of the training part and of the other parts in the same way.

    Whole numbers, texts and truth values are classes. They are numbered in ascending order as they
    occur in the training part, so that they need not begin at 0 or be without gaps. Rows of 0 and 1
    are classes if each row has a single 1, else labels of which several may hold. Numbers with a
    point are regressed. `task` decides otherwise.

    Args:
        parts: targets [n] or [n, ...] of the training part, then of the others.
        owner: the data set for messages.
        task: what the targets are for, None to tell by their type.

    Returns:
        int64 [n, ...] for classes, float32 [n, labels] or [n, outputs] for the rest.

    Raises:
        InputError: if targets are missing or not finite, do not suit the task, or the classes of
            another part are unknown to the training part.
    """
    parts = [_tidied(part, owner) for part in parts]
    task = task or _task_of(parts, owner)
    if task == "classes":
        return _as_classes(parts, owner)
    numbers = [_as_numbers(part, owner, task) for part in parts]
    outputs = numbers[0].shape[1]
    if any(part.shape[1] != outputs for part in numbers):
        found = " and ".join(str(part.shape[1]) for part in numbers)
        raise InputError(f"{owner} has parts with {found} outputs: give all the same.")
    if task == "multi-label" and not all(_zeros_and_ones(part) for part in numbers):
        raise InputError(
            f"{owner} has targets other than 0 and 1, accepted for several labels are 0 and 1: "
            "correct them or say task=regression."
        )
    return EncodedTargets(task, outputs, tuple(map(torch.from_numpy, numbers)))


def _tidied(values: Values, owner: str) -> Values:
    if values.ndim == 0 or not len(values):
        raise InputError(f"{owner} has no targets in one of its parts: give one for each sample.")
    if values.dtype.kind not in "biufUSO":
        raise InputError(
            f"{owner} has targets of type {values.dtype}, accepted are numbers, texts and truth "
            "values: convert them."
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(
            f"{owner} has {count} targets that are missing or infinite: leave these samples out."
        )
    return values


def _task_of(parts: Sequence[Values], owner: str) -> Task:
    first = parts[0]
    rows_of_flags = first.ndim == 2 and all(_zeros_and_ones(part) for part in parts)
    if rows_of_flags:
        one_hot = all((part.astype(np.float64).sum(axis=1) == 1).all() for part in parts)
        return "classes" if one_hot else "multi-label"
    if first.dtype.kind == "f":
        return "regression"
    different = len(np.unique(first))
    if first.ndim == 1 and different > max(_MANY_CLASSES, len(first) // 2):
        raise InputError(
            f"{owner} has {different} different targets in {len(first)} samples, which hardly are "
            "classes: say task=regression for numbers, or task=classes if they are."
        )
    return "classes"


def _as_classes(parts: Sequence[Values], owner: str) -> EncodedTargets:
    if all(part.ndim == 2 and _zeros_and_ones(part) for part in parts):
        if not all((part.astype(np.float64).sum(axis=1) == 1).all() for part in parts):
            raise InputError(
                f"{owner} has rows with several or no 1 among its targets, accepted for classes is "
                "a single 1 in each row: say task=multi-label."
            )
        classes = parts[0].shape[1]
        encoded = tuple(torch.from_numpy(part.argmax(axis=1)) for part in parts)
        return EncodedTargets("classes", classes, encoded, tuple(map(str, range(classes))))
    known = np.unique(parts[0])
    if len(known) < 2:
        raise InputError(
            f"{owner} has the class {_name(known[0])!r} alone, accepted are at least two: name "
            "other targets, or say task=regression."
        )
    encoded = tuple(_numbered(part, known, owner) for part in parts)
    return EncodedTargets("classes", len(known), encoded, tuple(map(_name, known)))


def _numbered(part: Values, known: Values, owner: str) -> Tensor:
    kinds = {part.dtype.kind, known.dtype.kind}
    if len(kinds) > 1 and not kinds.isdisjoint("US"):
        part, known = _as_texts(part), _as_texts(known)
    order = np.argsort(known)  # ascending texts need not be ascending numbers
    found = np.searchsorted(known, part, sorter=order)
    places = order[np.minimum(found, len(known) - 1)]
    strange = part[known[places] != part]
    if strange.size:
        raise InputError(
            f"{owner} has the class {_name(strange.flat[0])!r} in a part other than the training "
            f"part, whose classes are {_listed(known)}: correct it or add it to the training part."
        )
    return torch.from_numpy(places.astype(np.int64))


def _as_texts(values: Values) -> Values:
    return np.array([_name(value) for value in values.flat]).reshape(values.shape)


def _as_numbers(part: Values, owner: str, task: Task) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            numbers: NDArray[np.float32] = part.astype(np.float32)
    except (TypeError, ValueError):
        raise InputError(
            f"{owner} has targets that are no numbers, accepted for task={task} are numbers: "
            "correct them or say task=classes."
        ) from None
    lost = int((~np.isfinite(numbers)).sum())
    if lost:
        raise InputError(
            f"{owner} has {lost} targets that are missing or infinite in float32, accepted are "
            f"numbers up to {LARGEST_NUMBER}: scale them or leave these samples out."
        )
    return numbers.reshape(len(numbers), -1)


def _zeros_and_ones(values: Values) -> bool:
    if values.dtype.kind == "b":
        return True
    return values.dtype.kind in "iuf" and bool(((values == 0) | (values == 1)).all())


def _name(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _listed(known: Values) -> str:
    shown = ", ".join(map(_name, known[:10]))
    return f"{shown}, ..." if len(known) > 10 else shown
