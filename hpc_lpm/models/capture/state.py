"""A module's parameters, buffers and modes: their names, and how to leave them as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def named_state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all names of parameters and buffers, several for those that are shared."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def first_names(module: nn.Module) -> dict[str, str]:
    """Return for each name of a parameter or buffer the first name of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named_state(module)}


def modes_of(module: nn.Module) -> dict[nn.Module, bool]:
    """Return for each part of a module if it is in training mode."""
    return {part: part.training for part in module.modules()}


def set_modes(modes: dict[nn.Module, bool]) -> None:
    """Set each part to the mode that `modes_of` has found."""
    for part, mode in modes.items():
        part.training = mode


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Restore buffers, gradients and modes of a module."""
    modes = modes_of(module)
    parameters = list(module.parameters())
    gradients = [parameter.grad for parameter in parameters]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    owners = [
        (part, name, buffer) for part in module.modules() for name, buffer in part._buffers.items()
    ]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for part, name, buffer in owners:
            part._buffers[name] = buffer
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        set_modes(modes)
