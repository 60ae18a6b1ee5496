"""Python's objects as bytes, for messages between ranks that anybody on the network could write.

They are pickles. A pickle is a program that may call anything; this reader lends it classes that
hold data, and lets it restore the objects of the user's own classes without calling these. A tensor
travels as its bytes, since torch's own way of pickling one reads a second pickle without such a
reader.
"""

import collections
import datetime
import enum
import io
import pathlib
import pickle
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor
from torch.utils import _pytree

from hpc_lpm.engine.pipeline.memory_order import is_dense


class RefusedMessageError(Exception):
    """A message refers to something that is no data."""


def packed(value: object) -> bytes:
    """Return the bytes of a message; its tensors are copied to the host."""
    stream = io.BytesIO()
    _Writer(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def unpacked(content: bytes) -> Any:
    """Return what `packed` was given; tensors are on the host, and require no gradient.

    Raises:
        RefusedMessageError: if it holds something that acts, or is no message.
    """
    try:
        return _Reader(io.BytesIO(content)).load()
    except RefusedMessageError:
        raise
    except Exception as error:  # whatever a pickle that was not written by `packed` makes of itself
        raise RefusedMessageError(f"it cannot be read ({type(error).__name__}: {error})") from error


class _Writer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Write tensors as their bytes; leave the rest to pickle."""
        if isinstance(value, Tensor) and value.layout is torch.strided:
            host = value.detach().cpu().resolve_conj().resolve_neg()
            content = host.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            strides = host.stride() if is_dense(host) else None
            return _tensor, (content, host.dtype, tuple(host.shape), strides)
        return NotImplemented


def _tensor(
    content: bytes, dtype: torch.dtype, shape: Sequence[int], strides: Sequence[int] | None
) -> Tensor:
    if not content:
        return torch.empty(shape, dtype=dtype)
    found = torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)
    if strides is None or found.stride() == tuple(strides):
        return found
    return torch.empty_strided(shape, strides, dtype=dtype).copy_(found)


_BUILTINS = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
_LENT: dict[tuple[str, str], Callable[..., object]] = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (
        *(*_BUILTINS, slice, range),
        *(collections.OrderedDict, collections.defaultdict, collections.deque, collections.Counter),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
        *(pathlib.Path, pathlib.PosixPath, pathlib.PurePath, pathlib.PurePosixPath),
        *(np.ndarray, np.dtype, torch.Size, torch.device),
        *(_pytree.TreeSpec, _pytree.LeafSpec),
        _tensor,
    )
}
# The functions by which numpy's arrays and numbers are written.
for _written in (
    np.array([0]).__reduce__(),
    np.array([0]).__reduce_ex__(pickle.HIGHEST_PROTOCOL),
    np.float64(0).__reduce__(),
):
    _function: Any = _written[0]
    _LENT[_function.__module__, _function.__qualname__] = _function
_OF_DATA = (BaseModel, BaseException, enum.Enum, np.generic)
_VALUES_OF_TORCH = (torch.dtype, torch.memory_format, torch.layout)
_STRUCTURES = ("hpc_lpm.activation", "_structure_of")
_MAKERS = tuple(kind.__new__ for kind in (object, dict, list, tuple, set, int, float, str))
_OF_OTHERS = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle refers to, if that is data."""
        if (module, name) in _LENT:
            return _LENT[module, name]
        try:
            # Only what is here already: to import a module would run it.
            found = reduce(getattr, name.split("."), sys.modules[module])
        except (KeyError, AttributeError):
            raise RefusedMessageError(f"it refers to {module}.{name}, which is not here") from None
        if isinstance(found, _VALUES_OF_TORCH) or (module, name) == _STRUCTURES:
            return found
        if isinstance(found, type):
            if _holds_data(found):
                return found
            if found.__new__ in _MAKERS and _is_own(found):
                return _restoring(found)
        raise RefusedMessageError(f"it refers to {module}.{name}, which is no data")


def _holds_data(kind: type) -> bool:
    named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    divisible = kind in _pytree.SUPPORTED_NODES  # activations of the user's own
    return named_tuple or divisible or is_dataclass(kind) or issubclass(kind, _OF_DATA)


def _is_own(kind: type) -> bool:
    """Tell if a class is of this package, or of a module that is not installed: the user's own."""
    package = kind.__module__.partition(".")[0]
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    installed = file is None or file.startswith(_OF_OTHERS)
    return package == "hpc_lpm" or not installed


class _NotCalled(type):
    def __call__(cls, *_: object, **__: object) -> Any:
        raise RefusedMessageError(f"it calls {cls.__name__}, which is no data")


def _restoring(kind: type) -> type:
    """Return a stand-in for a class, by which its objects are restored, but which nobody calls."""

    def make(_: type, *arguments: Any) -> Any:
        return kind.__new__(kind, *arguments)

    return _NotCalled(kind.__name__, (), {"__new__": make})
