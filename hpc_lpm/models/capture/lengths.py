"""`len(tensor)` in a user's code, of which Python makes a number that a capture would fix."""

import builtins
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def symbolic_lengths(module: nn.Module) -> Iterator[None]:
    """Let `len(tensor)` be `tensor.shape[0]` in the files that define the module's parts."""
    files: dict[int, dict[str, Any]] = {}
    for part in module.modules():
        for kind in type(part).__mro__:
            forward = inspect.unwrap(vars(kind).get("forward", len))
            if inspect.isfunction(forward) and not kind.__module__.startswith("torch."):
                files[id(forward.__globals__)] = forward.__globals__
    changed = [names for names in files.values() if "len" not in names]
    for names in changed:
        names["len"] = _length
    try:
        yield
    finally:
        for names in changed:
            del names["len"]


def _length(sized: Any) -> int | torch.SymInt:
    if isinstance(sized, Tensor) and sized.dim() > 0:
        return sized.shape[0]
    return builtins.len(sized)
