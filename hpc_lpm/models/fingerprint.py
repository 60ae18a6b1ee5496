"""What tells one layer from another: its name, and names, shapes and types of what it holds."""

import hashlib
import json
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

DIGITS = 16
"""Hexadecimal digits of a fingerprint: they guard against mistakes, not against forgery."""


def layer_fingerprint(name: str, module: nn.Module) -> str:
    """Return the fingerprint of a layer that has just been built.

    It depends on the layer's name and on names, shapes and types of its parameters and buffers, not
    on their values or the device. A module that emulates a layer of another model has that layer's
    fingerprint as its attribute `stands_for`.
    """
    emulated = getattr(module, "stands_for", None)
    if isinstance(emulated, str):
        return emulated
    held = [name, _described(module.named_parameters()), _described(module.named_buffers())]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:DIGITS]


def _described(tensors: Iterable[tuple[str, Tensor]]) -> list[list[object]]:
    return [
        # The shape of a lazy parameter is known only after the first pass.
        [name, None if is_lazy(tensor) else list(tensor.shape), str(tensor.dtype)]
        for name, tensor in tensors
    ]
