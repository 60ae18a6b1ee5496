"""Modules that are layers as they stand."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeGuard

from torch import nn

from hpc_lpm.errors import InputError
from hpc_lpm.models.capture.pieces import Piece
from hpc_lpm.models.capture.state import named_state
from hpc_lpm.models.layered import ModuleEnd
from hpc_lpm.user_functions import describe_raised


class ModuleBuilder:
    """Builds copies of a module, without its gradients, until it is released."""

    def __init__(self, module: nn.Module) -> None:
        self._module: nn.Module | None = module

    def __call__(self) -> nn.Module:
        """Return a copy of the module.

        Raises:
            InputError: if it cannot be copied, or has been released.
        """
        if self._module is None:
            raise InputError(
                "the weights of this layer have been released: build it before, or create the "
                "model anew."
            )
        try:
            copy = deepcopy(self._module)
        except Exception as error:
            raise InputError(
                f"a {type(self._module).__name__} cannot be copied, {describe_raised(error)}: "
                "return builders instead of modules, with lambda: in front of each."
            ) from error
        for parameter in copy.parameters():
            parameter.grad = None
        # A layer leaves its input alone; nobody else sees it within a chain.
        if getattr(copy, "inplace", False) is True and not list(copy.children()):
            copy.inplace = False  # type: ignore[assignment]
        return copy

    def release(self) -> None:
        """Let go of the module."""
        self._module = None


@dataclass(frozen=True)
class Child:
    """A module that becomes a layer: its path, and the user's modules that end with it."""

    path: str
    module: nn.Module
    ends: tuple[ModuleEnd, ...]


def is_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Tell if a module is nothing but its children, each called on what the one before returned."""
    if not isinstance(module, nn.Sequential) or not len(module):
        return False
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return type(module).forward is nn.Sequential.forward and not hooks


def children_of(module: nn.Module, path: str = "") -> Iterator[Child]:
    """Yield the children of a module; an nn.Sequential among them gives its own instead."""
    children = list(module.named_children())
    # An nn.Sequential may hold one module several times, which named_children gives once.
    if is_sequence(module):
        children = list(zip(module._modules, module, strict=True))
    for name, child in children:
        place = f"{path}{name}"
        end = ModuleEnd(place, type(child).__name__)
        if type(child) is nn.Sequential and is_sequence(child):
            *inner, last = children_of(child, f"{place}.")
            yield from inner
            yield Child(last.path, last.module, (*last.ends, end))
        else:
            yield Child(place, child, (end,))


def plain_pieces(children: Iterable[Child]) -> list[Piece]:
    """Return modules as layers; those that share a buffer are one, with all between them."""
    remaining = list(children)
    last_use = {
        id(buffer): number
        for number, child in enumerate(remaining)
        for buffer in child.module.buffers()
    }
    pieces: list[Piece] = []
    start = 0
    while start < len(remaining):
        stop, number = start + 1, start
        while number < stop:
            uses = [last_use[id(buffer)] for buffer in remaining[number].module.buffers()]
            stop = max([stop, *(use + 1 for use in uses)])
            number += 1
        pieces.append(_piece(remaining[start:stop]))
        start = stop
    return pieces


def _piece(children: list[Child]) -> Piece:
    first, last = children[0], children[-1]
    if len(children) == 1:
        module, path = first.module, first.path
        original = {name: f"{path}.{name}" if path else name for name, _ in named_state(module)}
    else:
        module = nn.Sequential(*(child.module for child in children))
        path = f"{first.path}..{last.path}"
        original = {
            f"{number}.{name}": f"{child.path}.{name}"
            for number, child in enumerate(children)
            for name, _ in named_state(child.module)
        }
    return Piece(path, ModuleBuilder(module), dict(named_state(module)), original, last.ends)
