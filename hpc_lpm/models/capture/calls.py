"""The calls of the user's modules within a recording."""

from dataclasses import dataclass

from torch.fx import Node


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module: `key` tells several calls of one module apart."""

    key: str
    path: str
    type: str


def calls_of(node: Node) -> list[ModuleCall]:
    """Return the module calls in which an operation happens, from the outermost inwards.

    The call of the whole module itself is left out.
    """
    stack = node.meta.get("nn_module_stack") or {}
    return [
        ModuleCall(key, path, kind if isinstance(kind, str) else kind.__name__)
        for key, (path, kind) in stack.items()
        if path and not path.startswith("_empty_nn_module_stack")
    ]


def common_calls(first: list[ModuleCall], second: list[ModuleCall]) -> int:
    """Return how many of the outer calls two operations share."""
    shared = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        shared += 1
    return shared
