"""Data sets of arrays that numpy saved: a `.npz` file, or `.npy` files."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc_lpm.data.array_files import ArrayPart, named_parts, npy_array, npy_arrays, npz_arrays
from hpc_lpm.data.array_inputs import Layout, encode_inputs
from hpc_lpm.data.dataset import NEXT_TOKEN, Dataset, DataShape
from hpc_lpm.data.held_out import split_share, test_part
from hpc_lpm.data.locations import beside, is_folder, require_file
from hpc_lpm.data.samples import Split
from hpc_lpm.data.targets import EncodedTargets, Task, Values, encode_targets
from hpc_lpm.errors import InputError


def npz_files(path: Path, *, test: str | None = None, **_options: object) -> Iterable[Path]:
    """Return the file, and that of the test part if there is one of its own."""
    held_out = test_part(f"npz:{path}", test, path.parent)
    other = [held_out] if isinstance(held_out, Path) else []
    return [require_file(file, "npz file") for file in (path, *other)]


def load_npz(
    path: Path,
    *,
    inputs: str | None = None,
    targets: str | None = None,
    test: str | None = None,
    task: Task | None = None,
    layout: Layout | None = None,
) -> Dataset:
    """Load the arrays of a `.npz` file, whose names tell what they are.

    Names such as x_train, y_test, images, train_labels or val_images are understood, and arr_0 and
    arr_1 where there are no others.

    Args:
        path: the file.
        inputs: the name of the training part's inputs, if it is another.
        targets: the name of its targets, if it is another.
        test: a share of the training samples, or another file; by default the file's own test part,
            else its validation part, else a fifth of the samples.
        task: what is to be learnt; see `encode_targets`.
        layout: how the inputs are laid out; see `encode_inputs`.

    Raises:
        InputError: if the file is missing or broken, holds objects, or has no such arrays.
    """
    owner = f"npz:{path}"
    held_out = test_part(owner, test, path.parent)
    parts = named_parts(npz_arrays(path), owner, inputs, targets, own_test=held_out is None)
    if isinstance(held_out, Path):
        other = named_parts(npz_arrays(held_out), f"npz:{held_out}", inputs, targets)
        parts = {**parts, "test": other.get("test", other["training"])}
        held_out = None
    return array_dataset(owner, parts, held_out, task, layout)


def npy_files(
    path: Path,
    *,
    targets: str | None = None,
    test: str | None = None,
    test_targets: str | None = None,
    **_options: object,
) -> Iterable[Path]:
    """Return the files of all arrays, those of the test part last."""
    if is_folder(path, "npy"):
        held_out = test_part(f"npy:{path}", test, path)
        other = sorted(held_out.glob("*.npy")) if isinstance(held_out, Path) else []
        return [*sorted(path.glob("*.npy")), *other]
    held_out = test_part(f"npy:{path}", test, path.parent)
    named = [beside(path.parent, text) for text in (targets, test_targets) if text]
    other = [held_out] if isinstance(held_out, Path) else []
    return [require_file(file, "npy file") for file in (path, *named, *other)]


def load_npy(
    path: Path,
    *,
    inputs: str | None = None,
    targets: str | None = None,
    test: str | None = None,
    test_targets: str | None = None,
    task: Task | None = None,
    layout: Layout | None = None,
) -> Dataset:
    """Load arrays of `.npy` files, which stay on disk until samples are needed.

    Args:
        path: a folder of files that are named like the arrays of a `.npz` file (see `load_npz`), or
            the file of the inputs.
        inputs: in a folder, the name of the training part's inputs, if it is another.
        targets: in a folder, the name of its targets; else their file, here or beside `path`.
        test: a share of the training samples, or another folder; if `path` is a file, the file of
            the test part's inputs.
        test_targets: the file of the test part's targets, if `test` is a file.
        task: what is to be learnt; see `encode_targets`.
        layout: how the inputs are laid out; see `encode_inputs`.

    Raises:
        InputError: if a file is missing or broken, holds objects, or its part is not known.
    """
    owner = f"npy:{path}"
    if is_folder(path, "npy"):
        if test_targets:
            raise InputError(
                f"option 'test_targets' of {owner} is given with a folder, which names its arrays "
                "itself: leave it out."
            )
        held_out = test_part(owner, test, path)
        parts = named_parts(npy_arrays(path), owner, inputs, targets, own_test=held_out is None)
        if isinstance(held_out, Path):
            other = named_parts(npy_arrays(held_out), f"npy:{held_out}", inputs, targets)
            parts = {**parts, "test": other.get("test", other["training"])}
            held_out = None
        return array_dataset(owner, parts, held_out, task, layout)
    if not targets:
        raise InputError(
            f"{owner} has inputs without targets, accepted is npy:X.npy,targets=Y.npy: name the "
            "file of the targets."
        )
    held_out = test_part(owner, test, path.parent)
    if isinstance(held_out, Path) != (test_targets is not None):
        raise InputError(
            f"{owner} has 'test' and 'test_targets' that do not belong together, accepted is a "
            "file for each, or a share and no file: correct the options."
        )
    parts = {"training": ArrayPart(npy_array(path), npy_array(beside(path.parent, targets)))}
    if isinstance(held_out, Path) and test_targets:
        parts["test"] = ArrayPart(npy_array(held_out), npy_array(beside(path.parent, test_targets)))
        held_out = None
    assert not isinstance(held_out, Path)
    return array_dataset(owner, parts, held_out, task, layout)


def array_dataset(
    owner: str,
    parts: dict[str, ArrayPart],
    share: float | None,
    task: Task | None,
    layout: Layout | None,
) -> Dataset:
    """Make a data set of named parts; a share of the training part is held out where it must be.

    Raises:
        InputError: if inputs or targets are of a type that is not understood, or do not belong
            together.
    """
    if share is not None:
        parts.pop("test", None)
    elif "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    for name, part in parts.items():
        if len(part.inputs) != len(part.targets):
            raise InputError(
                f"the {name} part of {owner} has {len(part.inputs)} inputs and "
                f"{len(part.targets)} targets: give one target for each input."
            )
    if task is None and all(map(_are_tokens, parts.values())):
        return _token_dataset(owner, parts, share)
    inputs = encode_inputs([part.inputs for part in parts.values()], owner, layout)
    targets = encode_targets([part.targets for part in parts.values()], owner, task)
    pairs = zip(inputs.parts, targets.parts, strict=True)
    tensors = dict(zip(parts, pairs, strict=True))
    shape = DataShape("image", inputs.shape, targets.classes, targets.task)
    return _split_dataset(owner, shape, tensors, share, targets, (inputs.mean, inputs.std))


def _split_dataset(
    owner: str,
    shape: DataShape,
    tensors: dict[str, tuple[Tensor, Tensor]],
    share: float | None,
    targets: EncodedTargets | None,
    moments: tuple[float, float],
) -> Dataset:
    if "test" not in tensors:
        inputs, labels = tensors["training"]
        by_class = targets is not None and targets.task == "classes" and labels.dim() == 1
        train, test = split_share(len(inputs), share, owner, labels if by_class else None)
        tensors["training"] = inputs[train], labels[train]
        tensors["test"] = inputs[test], labels[test]
    made = {name: Split(*pair, *moments) for name, pair in tensors.items()}
    return Dataset(
        owner,
        shape,
        made["training"],
        made["test"],
        made.get("validation"),
        class_names=targets.names if targets else (),
    )


def _are_tokens(part: ArrayPart) -> bool:
    """Tell if inputs and targets are token indices: wide integers of the same shape [n, length]."""
    inputs, targets = part.inputs, part.targets
    whole = inputs.dtype.kind in "iu" and targets.dtype.kind in "iu" and inputs.dtype.itemsize > 1
    return whole and inputs.ndim == 2 and inputs.shape == targets.shape and inputs.shape[1] > 1


def _token_dataset(owner: str, parts: dict[str, ArrayPart], share: float | None) -> Dataset:
    arrays = [array for part in parts.values() for array in (part.inputs, part.targets)]
    if min(int(array.min()) for array in arrays) < 0:
        raise InputError(
            f"{owner} has negative tokens, accepted are indices from 0: correct them, or say "
            "task=classes if they are no tokens."
        )
    vocabulary = 1 + max(int(array.max()) for array in arrays)
    length = parts["training"].inputs.shape[1]
    for name, part in parts.items():
        if part.inputs.shape[1] != length:
            raise InputError(
                f"the {name} part of {owner} has samples of {part.inputs.shape[1]} tokens, "
                f"accepted are {length} as in the training part: make them equal."
            )
    shape = DataShape("text", (length,), vocabulary, NEXT_TOKEN)
    tensors = {
        name: (_integers(part.inputs), _integers(part.targets)) for name, part in parts.items()
    }
    return _split_dataset(owner, shape, tensors, share, None, (0.0, 1.0))


def _integers(array: Values) -> Tensor:
    return torch.from_numpy(array.astype(np.int64, copy=False))
