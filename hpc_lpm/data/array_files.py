"""Arrays in `.npz` and `.npy` files, and what their names tell of their use."""

import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Literal

import numpy as np

from hpc_lpm.data.locations import require_file
from hpc_lpm.data.targets import Values
from hpc_lpm.errors import InputError

Role = Literal["inputs", "targets"]
_ROLE_NAMES: tuple[Role, ...] = ("inputs", "targets")

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("x", "input", "inputs", "image", "images", "data", "features"), "inputs"),
    **dict.fromkeys(("y", "target", "targets", "label", "labels"), "targets"),
}
_PARTS = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_EXAMPLES = "x_train, y_train, x_test and y_test, or x and y"

_DAMAGED = (
    *(OSError, EOFError, KeyError, TypeError, OverflowError, NotImplementedError, RuntimeError),
    *(SyntaxError, TokenError, zipfile.BadZipFile, zlib.error),
)
"""What numpy raises for damaged heads and contents, besides ValueError."""

_NPY, _ZIP = b"\x93NUMPY", b"PK"
"""What files of one array and of several begin with."""

NamedArrays = Mapping[str, Callable[[], Values]]
"""Arrays by name, each read when it is asked for."""


@dataclass(frozen=True)
class ArrayPart:
    """Inputs [n, ...] and targets [n, ...] of one part."""

    inputs: Values
    targets: Values


def named_parts(
    arrays: NamedArrays,
    owner: str,
    inputs: str | None,
    targets: str | None,
    *,
    own_test: bool = False,
) -> dict[str, ArrayPart]:
    """Return the parts that the names of arrays tell, the training part first.

    Args:
        arrays: the arrays by name.
        owner: the data set for messages.
        inputs: the name of the training part's inputs, None to tell by the names.
        targets: the name of the training part's targets, likewise.
        own_test: whether the test part is to be one of these, if there is any.

    Raises:
        InputError: if the names do not tell the training part, or tell a test part by halves.
    """
    names: dict[tuple[str, Role], list[str]] = {}
    for name in arrays:
        known = _understood(name)
        if known:
            names.setdefault(known, []).append(name)
    if not names and len(arrays) == 2 and {"arr_0", "arr_1"} == set(arrays):
        names = {("training", "inputs"): ["arr_0"], ("training", "targets"): ["arr_1"]}
    for role, given in (("inputs", inputs), ("targets", targets)):
        if given is not None:
            if given not in arrays:
                raise InputError(
                    f"option {role!r} of {owner} is {given!r}, its arrays are "
                    f"{', '.join(arrays)}: name one of them."
                )
            names["training", role] = [given]  # type: ignore[index]
    parts = {}
    for part in ("training", "validation", "test"):
        found = [names.get((part, "inputs"), []), names.get((part, "targets"), [])]
        if all(len(candidates) == 1 for candidates in found):
            parts[part] = ArrayPart(*(arrays[candidates[0]]() for candidates in found))
    if "training" not in parts:
        raise InputError(
            f"{owner} holds {_listed(arrays)}, which do not tell inputs and targets, understood "
            f"are {_EXAMPLES}: name them with ,inputs=NAME,targets=NAME."
        )
    if own_test:
        _refuse_halves(names, parts, owner, {inputs, targets})
    return parts


def _refuse_halves(
    names: Mapping[tuple[str, Role], list[str]],
    parts: Mapping[str, ArrayPart],
    owner: str,
    given: Collection[str | None],
) -> None:
    """Refuse a part to test with whose arrays are not one of inputs and one of targets.

    Without it, samples of the training part would be held out instead. The arrays `given` are those
    that the user has called the training part's.
    """
    for part in ("test",) if "test" in parts else ("test", "validation"):
        told = [name for role in _ROLE_NAMES for name in names.get((part, role), [])]
        found = [name for name in told if name not in given]
        if found and part not in parts:
            raise InputError(
                f"{owner} holds {', '.join(found)} of a {part} part, accepted is one array of "
                "inputs and one of targets: add or remove arrays, or hold out a share of the "
                "training samples with ,test=0.2."
            )


def _understood(name: str) -> tuple[str, Role] | None:
    """Return the part and the role that a name such as x_train or val_labels tells."""
    words = re.findall("[a-z]+|[0-9]+", name.lower())
    roles = [_ROLES[word] for word in words if word in _ROLES]
    parts = [_PARTS[word] for word in words if word in _PARTS]
    if len(roles) != 1 or len(parts) > 1 or len(roles) + len(parts) != len(words):
        return None
    return (parts or ["training"])[0], roles[0]


def _listed(arrays: NamedArrays) -> str:
    return f"the arrays {', '.join(arrays)}" if arrays else "no arrays"


def npz_arrays(path: Path) -> NamedArrays:
    """Return the arrays of a `.npz` file.

    Raises:
        InputError: if it is missing or broken, or, once an array is asked for, that is of objects.
    """
    require_file(path, "npz file")

    def read(name: str) -> Values:
        with _understanding(path, name), np.load(path, allow_pickle=False) as archive:
            return _checked(archive[name], f"array {name} of {path}")

    if _begins_with(path, _NPY):
        raise InputError(f"{path} holds one array, accepted is a .npz file: use npy:{path}.")
    _require_start(path, _ZIP, ".npz")
    with _understanding(path), np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
    return {name: partial(read, name) for name in names}


def npy_arrays(folder: Path) -> NamedArrays:
    """Return the arrays of the `.npy` files of a folder by their names without the ending."""
    return {path.stem: partial(npy_array, path) for path in sorted(folder.glob("*.npy"))}


def npy_array(path: Path) -> Values:
    """Return the array of a `.npy` file, which is read from disk when it is used.

    Raises:
        InputError: if the file is missing or broken, or holds objects.
    """
    require_file(path, "npy file")
    if _begins_with(path, _ZIP):
        raise InputError(f"{path} holds several arrays, accepted is one: use npz:{path}.")
    _require_start(path, _NPY, ".npy")
    with _understanding(path):
        # Copied when written to: torch takes no arrays that are read-only.
        array = np.load(path, allow_pickle=False, mmap_mode="c")
    return _checked(array, f"the array of {path}")


def _begins_with(path: Path, magic: bytes) -> bool:
    with _understanding(path), path.open("rb") as stream:
        return stream.read(len(magic)) == magic


def _require_start(path: Path, magic: bytes, format_name: str) -> None:
    if not _begins_with(path, magic):
        raise InputError(
            f"{path} is no {format_name} file of numpy's, or is damaged: save it again."
        )


@contextmanager
def _understanding(path: Path, name: str = "") -> Iterator[None]:
    """Turn what numpy raises for a file into a sentence."""
    what = f"array {name} of {path}" if name else str(path)
    try:
        yield
    except ValueError as error:
        if "pickle" in str(error) or "object" in str(error).lower():
            raise InputError(
                f"{what} holds Python objects, accepted are arrays of numbers or texts, since "
                "reading objects can run any program: save it with another dtype."
            ) from None
        raise InputError(f"{what} cannot be read ({error}): save it again.") from None
    except _DAMAGED as error:
        raise InputError(f"{what} cannot be read ({error}): save it again.") from None


def _checked(array: Values, what: str) -> Values:
    if array.ndim == 0 or not len(array):
        raise InputError(
            f"{what} has the shape {array.shape}, accepted is a sample a row: save it again."
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
