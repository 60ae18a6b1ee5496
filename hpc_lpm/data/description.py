"""What a data set holds, as `hpc-lpm datasets` shows it."""

from typing import Any

import torch
from torch import Tensor

from hpc_lpm.activation import Activation, tensors_of
from hpc_lpm.data.dataset import CLASSES, MULTI_LABEL, REGRESSION, Dataset
from hpc_lpm.data.image_files import ImageFiles, spread
from hpc_lpm.data.samples import Samples, Split
from hpc_lpm.errors import InputError

FIRST_SAMPLES = 3
_SHOWN_NUMBERS = 8
_SHOWN_BYTES = 60
_BYTES = 256
_MEASURED_SAMPLES = 1024
_COUNTED_SAMPLES = 10_000
"""Targets are counted where they are at hand, or where there are no more samples than this."""
_AT_ONCE = 4096


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return everything about a data set that can be told quickly, as a JSON document.

    `parts` has, for each part, its number of samples and how many there are of each class, or in
    which each label holds. `mean` and `std` are those of each channel of the training images, from
    0 to 1, or else those of the first training inputs. `targets_mean` and `targets_std` are those
    of each number to predict.
    """
    shape, train = dataset.shape, dataset.train
    few = torch.arange(min(FIRST_SAMPLES, len(train)))
    inputs, targets = train.inputs(few), train.targets(few)
    mean, std = _moments(train)
    return {
        "name": dataset.name,
        "kind": shape.kind,
        "task": shape.task,
        "input_shape": list(shape.input_shape),
        "inputs": _tensors(inputs),
        "targets": _tensors(targets),
        "classes": shape.classes,
        "vocabulary": shape.vocabulary if shape.kind == "text" else None,
        "class_names": list(dataset.class_names),
        "parts": {
            name: {"samples": len(part), "of_each_class": _counts(part, dataset)}
            for name, part in dataset.parts.items()
        },
        "mean": mean,
        "std": std,
        **_target_moments(dataset),
        "first_samples": [
            {"inputs": _excerpt(inputs, n, dataset), "target": _excerpt(targets, n, dataset)}
            for n in range(len(few))
        ],
        "skipped": list(dataset.skipped),
    }


def _tensors(activation: Activation) -> list[dict[str, Any]]:
    """Return type and shape of every tensor of a few samples, without the number of samples."""
    return [
        {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape[1:])}
        for tensor in tensors_of(activation)
    ]


def _counts(part: Samples, dataset: Dataset) -> list[int] | None:
    """Count the samples of each class or label; None where that makes no sense or takes long."""
    at_hand = isinstance(part, Split | ImageFiles) or len(part) <= _COUNTED_SAMPLES
    if dataset.shape.task not in (CLASSES, MULTI_LABEL) or not at_hand:
        return None
    counts = torch.zeros(dataset.shape.classes, dtype=torch.int64)
    for indices in torch.split(torch.arange(len(part)), _AT_ONCE):
        targets = part.targets(indices)
        if not isinstance(targets, Tensor):
            return None
        if dataset.shape.task == MULTI_LABEL:
            counts += targets.reshape(len(indices), -1).sum(0).long()
        else:
            counts += torch.bincount(targets.flatten(), minlength=len(counts))
    return counts.tolist()


def _moments(train: Samples) -> tuple[list[float] | None, list[float] | None]:
    try:
        return train.channel_statistics()
    except InputError:
        inputs = train.inputs(torch.arange(min(_MEASURED_SAMPLES, len(train))))
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return None, None
    values = inputs.double()
    return [float(values.mean())], [float(values.std(correction=0))]


def _target_moments(dataset: Dataset) -> dict[str, list[float]]:
    if dataset.shape.task != REGRESSION:
        return {}
    train = dataset.train
    targets = train.targets(torch.arange(min(_COUNTED_SAMPLES, len(train)))).double()
    numbers = targets.reshape(len(targets), -1)
    mean, std = numbers.mean(0), numbers.std(0, correction=0)
    return {"targets_mean": mean.tolist(), "targets_std": std.tolist()}


def _excerpt(activation: Activation, sample: int, dataset: Dataset) -> Any:
    """Return some numbers of a sample, evenly spread, or its beginning if it is text in bytes."""
    tensors = tensors_of(activation)
    if not tensors:
        return None
    values = tensors[0][sample].flatten()
    whole = not values.is_floating_point()
    if dataset.shape.kind == "text" and whole and len(values) > 1:
        if dataset.shape.vocabulary == _BYTES:
            return bytes(values[:_SHOWN_BYTES].tolist()).decode("utf-8", "replace")
        return values[:_SHOWN_NUMBERS].tolist()
    shown = values[spread(len(values), _SHOWN_NUMBERS)].tolist()
    numbers = shown if whole else [round(value, 4) for value in shown]
    return numbers[0] if len(values) == 1 else numbers
