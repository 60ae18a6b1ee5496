"""Checks that the parts of a data set hold what its shape says."""

import torch
from torch import Tensor

from hpc_lpm.activation import describe_tensors, tensors_of
from hpc_lpm.data.dataset import KINDS, MULTI_LABEL, OWN, REGRESSION, TASKS, Dataset, DataShape
from hpc_lpm.data.samples import Samples, Split
from hpc_lpm.errors import InputError

_SAMPLES_AT_ONCE = 4096


def check_dataset(dataset: Dataset, name: str) -> None:
    """Check that all parts hold what the data set's shape says; `name` is used in messages.

    The values of all tokens and classes are checked where they are in memory (`Split`), else those
    of the first sample.

    Raises:
        InputError: if a part is empty or holds no samples, or if inputs have another shape or kind,
            or targets or tokens are not in their range.
    """
    if not isinstance(dataset.shape, DataShape):
        raise InputError(
            f"the shape of data set {name!r} is {type(dataset.shape).__name__}, accepted is a "
            'DataShape such as DataShape("image", (1, 28, 28), 10).'
        )
    for part, samples in dataset.parts.items():
        where = f"the {part} part of data set {name!r}"
        if not isinstance(samples, Samples):
            raise InputError(
                f"{where} is {type(samples).__name__}, accepted is Split(inputs, targets)."
            )
        if len(samples) == 0:
            raise InputError(f"{where} is empty: put at least one sample into it.")
        _check_inputs(samples, dataset.shape, where)
        _check_targets(samples, dataset.shape, where)


def _check_inputs(samples: Samples, shape: DataShape, where: str) -> None:
    if shape.kind == "other":
        return
    first = samples.inputs(torch.tensor([0]))
    if not isinstance(first, Tensor):
        raise InputError(
            f"{where} has {type(first).__name__} as inputs, accepted for kind {shape.kind!r} are "
            f'{KINDS[shape.kind]}: change the kind of its DataShape to "other".'
        )
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
    if shape.kind == "text":
        for indices in _checked_indices(samples):
            _check_range(samples.inputs(indices), shape.vocabulary, f"{where} has the token")


def _check_targets(samples: Samples, shape: DataShape, where: str) -> None:
    first = samples.targets(torch.tensor([0]))
    if shape.task == OWN:
        return
    if not isinstance(first, Tensor):
        raise InputError(
            f"{where} has {type(first).__name__} as targets, accepted for the task {shape.task!r} "
            f"are {TASKS[shape.task]}: name the task {OWN!r} in its DataShape, and a loss of your "
            "own."
        )
    floating = shape.task in (MULTI_LABEL, REGRESSION)
    if first.is_floating_point() != floating:
        raise InputError(
            f"{where} has targets {describe_tensors(tensors_of(first))}, accepted for the task "
            f"{shape.task!r} are {TASKS[shape.task]}: convert them, or name another task in its "
            "DataShape."
        )
    if not floating:
        for indices in _checked_indices(samples):
            _check_range(samples.targets(indices), shape.classes, f"{where} has the target")


def _checked_indices(samples: Samples) -> tuple[Tensor, ...]:
    if not isinstance(samples, Split):
        return (torch.tensor([0]),)
    return torch.split(torch.arange(len(samples)), _SAMPLES_AT_ONCE)


def _check_range(values: Tensor, classes: int, found: str) -> None:
    for value in (int(values.min()), int(values.max())):
        if not 0 <= value < classes:
            raise InputError(
                f"{found} {value}, accepted for {classes} classes are 0 to {classes - 1}: number "
                "them from 0, or correct the classes of its DataShape."
            )
