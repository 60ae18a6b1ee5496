"""What flows from one layer to the next: any pytree, of which tensors are the part that travels.

A pytree (`torch.utils._pytree`) is a tensor, None, a number or any other value, or a list, tuple,
named tuple, dictionary or dataclass of pytrees.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Activation = Any
"""A pytree: what a layer takes as its one argument, and what it returns."""


@dataclass(frozen=True)
class Structure:
    """Everything about an activation but its tensors.

    `others` are the leaves that are not tensors, by their place among all leaves; two structures
    are equal if those are, and if the nesting is.
    """

    spec: pytree.TreeSpec
    others: tuple[tuple[int, Any], ...]

    def fill(self, tensors: Sequence[Tensor]) -> Activation:
        """Return the activation of this structure with these tensors, in their order."""
        remaining = iter(tensors)
        others = dict(self.others)
        places = range(self.spec.num_leaves)
        leaves = [others[place] if place in others else next(remaining) for place in places]
        return pytree.tree_unflatten(leaves, self.spec)

    def __str__(self) -> str:
        return str(self.fill([_Name("tensor")] * (self.spec.num_leaves - len(self.others))))  # type: ignore[list-item]


def taken_apart(activation: Activation) -> tuple[list[Tensor], Structure]:
    """Return the tensors of an activation, and its structure.

    Dataclasses that torch does not know yet are registered with it, so that it looks into them.
    """
    leaves, spec = _leaves(activation)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if len(tensors) == len(leaves):
        return tensors, Structure(spec, ())
    others = tuple(
        (place, leaf) for place, leaf in enumerate(leaves) if not isinstance(leaf, Tensor)
    )
    return tensors, Structure(spec, others)


def tensors_of(activation: Activation) -> list[Tensor]:
    """Return the tensors of an activation in a fixed order."""
    if isinstance(activation, Tensor):
        return [activation]
    return [leaf for leaf in _leaves(activation)[0] if isinstance(leaf, Tensor)]


def describe_tensors(tensors: Iterable[Tensor]) -> str:
    """Return types and shapes for a message, such as `float32[16, 64], int64[16]`."""
    return ", ".join(
        f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" for tensor in tensors
    )


def differentiable(tensor: Tensor) -> bool:
    """Tell if a tensor's type can have a gradient."""
    return tensor.is_floating_point() or tensor.is_complex()


def leaves_like(activation: Activation) -> Activation:
    """Return an activation whose tensors share memory with these but have no history.

    Those that require a gradient are leaves that require one.
    """
    tensors, structure = taken_apart(activation)
    return structure.fill(
        [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
    )


def copied(activation: Activation) -> Activation:
    """Return an activation with copies of the tensors, without their history."""
    tensors, structure = taken_apart(activation)
    return structure.fill([tensor.detach().clone() for tensor in tensors])


def device_of(activation: Activation) -> torch.device:
    """Return the device of the first tensor, the host if there is none."""
    return next((tensor.device for tensor in tensors_of(activation)), torch.device("cpu"))


def _leaves(activation: Activation) -> tuple[list[Any], pytree.TreeSpec]:
    while True:
        leaves, spec = pytree.tree_flatten(activation)
        unknown = {
            type(leaf)
            for leaf in leaves
            if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type)
        }
        if not unknown:
            return leaves, spec
        for kind in unknown:
            pytree.register_dataclass(kind)


@dataclass(frozen=True)
class _Name:
    text: str

    def __repr__(self) -> str:
        return self.text
