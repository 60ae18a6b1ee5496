"""What a user's function may return as a data set, and what is found out about it.

It returns one of these:

* `(train, test)` or `(train, validation, test)`: data sets of torch's protocol with `__len__` and
  `__getitem__`, which returns (inputs, target); or iterables of such samples with `__len__`
* a dictionary with the keys `train` and `test`, and if wanted `validation`, `shape` (a `DataShape`)
  and `collate` (a function that makes (inputs, targets) of a list of samples)
* a `hpc_lpm.data.dataset.Dataset`

Inputs and targets are tensors or any pytrees of tensors. Without a shape, it is found out from the
samples: integer targets are classes, floating-point targets are numbers to predict, or labels if
there are several and all are 0 or 1. Classes and tokens are counted over all parts, since an
evaluation of one that the training part lacks would fail after all the training.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpc_lpm.activation import Activation
from hpc_lpm.data.dataset import (
    CLASSES,
    MULTI_LABEL,
    NEXT_TOKEN,
    OWN,
    REGRESSION,
    Dataset,
    DataShape,
)
from hpc_lpm.data.samples import Samples
from hpc_lpm.data.torch_datasets import declared_classes, samples_of
from hpc_lpm.errors import InputError, closest

_KEYS = ["train", "validation", "test", "shape", "collate"]
_EXAMPLE_SAMPLES = 3
_LOOKED_AT = 256
"""The number of samples from which it is told what floating-point targets are."""
_SAMPLES_AT_ONCE = 256


def own_dataset(name: str, made: object) -> Dataset:
    """Return the data set that a user's function has returned.

    Args:
        name: by which the user calls it.
        made: what the function returned.

    Raises:
        InputError: if it is none of what is accepted.
    """
    if isinstance(made, Dataset):
        return made
    given = _by_name(name, made)
    collate = given.get("collate")
    if collate is not None and not callable(collate):
        raise InputError(
            f"data set {name!r} has the collate {type(collate).__name__}, accepted is a function "
            "that makes (inputs, targets) of a list of samples."
        )
    called = {"train": "training"}
    parts = {
        key: samples_of(
            given[key], f"the {called.get(key, key)} part of data set {name!r}", collate
        )
        for key in ("train", "validation", "test")
        if key != "validation" or given.get(key) is not None
    }
    for key, samples in parts.items():
        if len(samples) == 0:
            raise InputError(
                f"the {called.get(key, key)} part of data set {name!r} is empty: put at least one "
                "sample into it."
            )
    shape = given.get("shape")
    if shape is None:
        shape = _found_shape(name, parts, _declared({key: given[key] for key in parts}))
    return Dataset(name, shape, parts["train"], parts["test"], parts.get("validation"))


def _by_name(name: str, made: object) -> Mapping[str, Any]:
    if isinstance(made, tuple | list) and len(made) in (2, 3):
        keys = ("train", "test") if len(made) == 2 else ("train", "validation", "test")
        return dict(zip(keys, made, strict=True))
    if isinstance(made, Mapping) and "train" in made and "test" in made:
        for key in made:
            if key not in _KEYS:
                raise InputError(
                    f"data set {name!r} returned a dictionary with the key {key!r}"
                    f"{closest(str(key), _KEYS)}: accepted are {', '.join(_KEYS)}."
                )
        return made
    found = type(made)
    raise InputError(
        f"data set {name!r} returned {found.__module__}.{found.__qualname__}, accepted are (train, "
        "test), a dictionary with the keys train and test, or a hpc_lpm.data.dataset.Dataset: "
        "return one of these."
    )


def _declared(given: Mapping[str, Any]) -> int | None:
    """Return the number of classes that the training part tells, or another part if it is more."""
    declared = declared_classes(given["train"])
    if declared is None:
        return None
    return max(declared, *(declared_classes(part) or 0 for part in given.values()))


def _found_shape(name: str, parts: Mapping[str, Samples], declared: int | None) -> DataShape:
    train = parts["train"]
    several = torch.arange(min(_EXAMPLE_SAMPLES, len(train)))
    inputs, targets = train.inputs(several), train.targets(several)
    kind, input_shape = _kind_of(inputs)
    example = inputs if kind == "other" else None
    if not isinstance(targets, Tensor):
        return DataShape(kind, input_shape, 1, OWN, example=example)
    if targets.is_floating_point():
        outputs = max(1, targets[0].numel())
        task = MULTI_LABEL if outputs > 1 and _are_labels(train) else REGRESSION
        return DataShape(kind, input_shape, outputs, task, example=example)
    tokens = isinstance(inputs, Tensor) and targets.shape == inputs.shape and kind == "text"
    task = NEXT_TOKEN if tokens else CLASSES
    if declared is None:
        declared = _largest(name, parts, of_inputs=False) + 1
    if kind != "text":
        return DataShape(kind, input_shape, declared, task, example=example)
    vocabulary = _largest(name, parts, of_inputs=True) + 1
    if task == NEXT_TOKEN:
        declared = vocabulary = max(declared, vocabulary)
    return DataShape(kind, input_shape, declared, task, vocabulary=vocabulary)


def _kind_of(inputs: Activation) -> tuple[str, tuple[int, ...]]:
    if not isinstance(inputs, Tensor) or inputs.dim() < 2:
        return "other", tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else ()
    if inputs.is_floating_point():
        return "image", tuple(inputs.shape[1:])
    if inputs.dtype == torch.int64:
        return "text", tuple(inputs.shape[1:])
    return "other", tuple(inputs.shape[1:])


def _are_labels(train: Samples) -> bool:
    targets = train.targets(torch.arange(min(_LOOKED_AT, len(train))))
    return bool(((targets == 0) | (targets == 1)).all())


def _largest(name: str, parts: Mapping[str, Samples], *, of_inputs: bool) -> int:
    """Return the largest of all tokens or classes, for which every sample is loaded.

    Raises:
        InputError: if any of them is negative.
    """
    least = largest = 0
    for samples in parts.values():
        for indices in torch.split(torch.arange(len(samples)), _SAMPLES_AT_ONCE):
            values = samples.inputs(indices) if of_inputs else samples.targets(indices)
            if not isinstance(values, Tensor) or values.is_floating_point():
                continue  # unlike the training part: `check_dataset` says so
            least, largest = min(least, int(values.min())), max(largest, int(values.max()))
    if least < 0:
        what = "token" if of_inputs else "class"
        raise InputError(
            f"data set {name!r} has the {what} {least}, accepted are whole numbers from 0: number "
            "them from 0."
        )
    return largest
