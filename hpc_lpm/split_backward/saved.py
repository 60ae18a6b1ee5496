"""What the nodes of an autograd graph have saved of the forward pass."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node


def has_hooks_on_saved(node: Node) -> bool:
    """Tell if somebody has put hooks on what a node has saved, as checkpointing does.

    To use it twice might mean to compute it twice.
    """
    return any(saved.unpack_hook is not None for saved in _saved_by(node))


def forget_saved(nodes: Iterable[Node]) -> None:
    """Release what nodes have saved of the forward pass; they cannot run backward again."""
    for node in nodes:
        for saved in _saved_by(node):
            # Refused where there is nothing to release, or hooks that answer for it.
            with suppress(RuntimeError):
                saved.register_hooks(_nothing, _never_asked_for)


def _saved_by(node: Node) -> Iterator[Any]:
    if isinstance(node, BackwardCFunction):
        names: tuple[str, ...] = ("_raw_saved_tensors",)
    else:
        names = _names(type(node))
    for name in names:
        saved = getattr(node, name)
        if isinstance(saved, tuple):
            yield from saved
        else:
            yield saved


@cache
def _names(kind: type[Node]) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_raw_saved_"))


def _nothing(_: Tensor) -> None:
    """Keep nothing of a tensor."""


def _never_asked_for(_: None) -> Tensor:
    raise RuntimeError(
        "a graph was run backward again after its first half: this is a defect of the toolkit"
    )
