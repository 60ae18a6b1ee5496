"""Searches for the layer that has caused an error; nothing here runs before there is one."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from types import TracebackType

import torch
from torch import Tensor, nn

from hpc_lpm.activation import (
    Activation,
    copied,
    differentiable,
    tensors_of,
    versions_of,
)

Layers = Mapping[int, nn.Module]
"""The layers of one stage by their index in the model, in order."""


def layer_in_traceback(layers: Layers, traceback: TracebackType | None) -> int | None:
    """Return the layer in whose forward pass an exception was raised, or None."""
    index_of = {id(layer): index for index, layer in layers.items()}
    while traceback is not None:
        caller = traceback.tb_frame.f_locals.get("self")
        if id(caller) in index_of:
            return index_of[id(caller)]
        traceback = traceback.tb_next
    return None


@torch.no_grad()
def layer_changing_input(layers: Layers, inputs: Activation) -> int | None:
    """Return the first layer that changes the inputs of the stage in place, or None."""
    passing = copied(inputs)
    given = tensors_of(passing)
    versions = versions_of(given)
    for index, layer in layers.items():
        passing = layer(passing)
        if versions_of(given) != versions:
            return index
    return None


@torch.no_grad()
def first_non_finite(layers: Layers, inputs: Activation) -> tuple[int, str] | None:
    """Return the first layer with a value that is not finite, and which of its values it is."""
    passing = copied(inputs)
    if not _finite(tensors_of(passing)):
        return next(iter(layers)), "its input, which earlier layers made, is not finite"
    for index, layer in layers.items():
        if not _finite(tuple(layer.parameters())):
            return index, "its weights are the first that are not finite"
        passing = layer(passing)
        if not _finite(tensors_of(passing)):
            return index, "its output is the first that is not finite"
    return None


def layer_failing_backward(layers: Layers, inputs: Activation) -> int | None:
    """Return the first layer up to which a backward pass fails again, or None if none does."""
    indices = list(layers)

    def fails(count: int) -> bool:
        try:
            _backward_through([layers[index] for index in indices[:count]], inputs)
        except Exception:
            return True
        return False

    if not fails(len(indices)):
        return None
    return indices[bisect_left(range(1, len(indices)), True, key=fails)]


@torch.enable_grad()
def _backward_through(layers: list[nn.Module], inputs: Activation) -> None:
    passing = copied(inputs)
    for tensor in tensors_of(passing):
        tensor.requires_grad_(differentiable(tensor))
    for layer in layers:
        passing = layer(passing)
    roots = [tensor for tensor in tensors_of(passing) if tensor.requires_grad]
    if roots:
        torch.autograd.backward(roots, [torch.ones_like(tensor) for tensor in roots])


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
