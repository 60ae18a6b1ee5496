"""Reads pickles that hold arrays, text, numbers, lists and dictionaries, and runs no code of them.

A pickle is a program that may call anything. This reader lends it four names alone, those by which
numpy's arrays are written, and behind each is a class of ours that checks what it is given. It also
leaves out what a few bytes could keep it busy with for ever, or fill the memory.
"""

import io
import pickle
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from hpc_lpm.errors import InputError

_VALUES = "biuf"


def read_array_pickle(content: bytes, name: str) -> dict[str, Any]:
    """Return the dictionary in a pickle, with text instead of bytes as keys.

    Arrays among its values are numpy arrays of numbers; texts that Python 2 wrote are bytes.

    Args:
        content: the pickle.
        name: the name of its file, for messages.

    Raises:
        InputError: if it refers to anything but arrays, is damaged, or holds no dictionary.
    """
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
    except _RefusedNameError as error:
        raise InputError(
            f"pickle {name} refers to {error}, accepted are arrays, bytes and dictionaries alone, "
            "since a pickle can run any program: fetch the published file again."
        ) from None
    except Exception as error:
        raise InputError(
            f"pickle {name} cannot be read ({type(error).__name__}: {error}): fetch it again."
        ) from None
    if not isinstance(found, dict):
        raise InputError(
            f"pickle {name} holds {type(found).__name__}, accepted is a dictionary: fetch the "
            "published file again."
        )
    return {_text(key): _value(value) for key, value in found.items()}


class _RefusedNameError(Exception):
    """A pickle refers to something that this reader does not lend it."""


class _ElementType:
    """Stands for numpy's dtype, of numbers alone."""

    __slots__ = ("name",)

    def __init__(self, name: object, *_: object) -> None:
        dtype = np.dtype(_text(name))
        if dtype.kind not in _VALUES:
            raise ValueError(f"an array of {dtype}")
        self.name = dtype.str

    def __setstate__(self, state: tuple[object, ...]) -> None:
        order, parts = _text(state[1]), state[2:5]
        if any(part is not None for part in parts):
            raise ValueError("an array of records")
        if order in {"<", ">"}:
            self.name = order + self.name[1:]


class _Array:
    """Stands for numpy's array while a pickle is read."""

    __slots__ = ("array",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, element, by_columns, values = state
        if not isinstance(element, _ElementType) or not isinstance(values, bytes):
            raise ValueError("an array without values")
        dtype = np.dtype(element.name)
        if not all(type(number) is int for number in shape):
            raise ValueError("an array whose shape is no numbers")
        if len(values) != prod(shape) * dtype.itemsize:
            raise ValueError(f"{len(values)} bytes for an array of shape {shape}")
        order = "F" if by_columns else "C"
        self.array = np.frombuffer(values, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


class _Named:
    """A function lent to a pickle, whose attributes cannot be set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)


def _encode(text: str, _: str = "latin1") -> bytes:
    return text.encode("latin1")


_LENT = {
    ("numpy", "ndarray"): _Named(lambda *_: _Array()),
    ("numpy", "dtype"): _Named(_ElementType),
    ("numpy.core.multiarray", "_reconstruct"): _Named(lambda *_: _Array()),
    ("numpy._core.multiarray", "_reconstruct"): _Named(lambda *_: _Array()),
    ("_codecs", "encode"): _Named(_encode),
}


_LEFT_OUT = {
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EMPTY_SET),
    *(pickle.ADDITEMS, pickle.FROZENSET, pickle.PERSID, pickle.BINPERSID, pickle.DUP),
    *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
}
"""Instructions that no published file has."""


_IN_PYTHON: Any = pickle._Unpickler
"""Python's own reader: the faster one in C makes room for whatever a file claims to hold."""


class _Reader(_IN_PYTHON):  # type: ignore[misc]
    dispatch = {  # noqa: RUF012
        code: load for code, load in _IN_PYTHON.dispatch.items() if bytes([code]) not in _LEFT_OUT
    }

    def load_setitem(self) -> None:
        """Set an entry of a dictionary."""
        self._check_key(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Set several entries of a dictionary."""
        for key in self.stack[::2]:
            self._check_key(key)
        super().load_setitems()

    def load_dict(self) -> None:
        """Make a dictionary of several entries."""
        for key in self.stack[::2]:
            self._check_key(key)
        super().load_dict()

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict

    def _check_key(self, key: object) -> None:
        """Refuse a key of tuples that hold each other, whose hash would take for ever."""
        if not isinstance(key, bytes | str | int | float | None):
            raise ValueError(f"{type(key).__name__} in place of a key")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _LENT:
            raise _RefusedNameError(f"{module}.{name}")
        return _LENT[module, name]


def _text(value: object) -> str:
    """Return a name; lists that hold each other would be spelled for ever."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"{type(value).__name__} in place of a name")
    return str(value)


def _value(value: object) -> object:
    return value.array if isinstance(value, _Array) else value
