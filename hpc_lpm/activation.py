"""What flows from one layer to the next: any pytree, of which tensors are the part that travels.

A pytree (`torch.utils._pytree`) is a tensor, None, a number or any other value, or a list, tuple,
named tuple, dictionary or dataclass of pytrees.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Activation = Any
"""A pytree: what a layer takes as its one argument, and what it returns."""


@dataclass(frozen=True)
class Structure:
    """Everything about an activation but its tensors.

    `others` are the leaves that are not tensors, by their place among all leaves. Where one tensor
    is several leaves, `shared` tells for each of the leaves that are tensors which tensor it is;
    else it is empty. Two structures are equal if these are, and if the nesting is.
    """

    spec: pytree.TreeSpec
    others: tuple[tuple[int, Any], ...] = ()
    shared: tuple[int, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Structure):
            return NotImplemented
        return (
            (self.spec, self.shared) == (other.spec, other.shared)
            and len(self.others) == len(other.others)
            and all(
                place == same_place and _are_alike(leaf, same_leaf)
                for (place, leaf), (same_place, same_leaf) in zip(
                    self.others, other.others, strict=True
                )
            )
        )

    def __hash__(self) -> int:
        return hash((self.spec.num_leaves, self.shared))

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process knows the dataclasses in it once it sees one, not by their description.
        return _structure_of, (self._emptied(),)

    def fill(self, tensors: Sequence[Any]) -> Activation:
        """Return the activation of this structure with these tensors, in their order."""
        if self.spec.is_leaf() and not self.others:
            return tensors[0]
        remaining = iter([tensors[index] for index in self.shared] if self.shared else tensors)
        others = dict(self.others)
        places = range(self.spec.num_leaves)
        leaves = [others[place] if place in others else next(remaining) for place in places]
        return pytree.tree_unflatten(leaves, self.spec)

    @property
    def is_lone_tensor(self) -> bool:
        """Whether the activation is nothing but one tensor."""
        return self.spec.is_leaf() and not self.others

    def __str__(self) -> str:
        return str(self._emptied())

    def _emptied(self) -> Activation:
        leaves = self.spec.num_leaves - len(self.others)
        count = max(self.shared) + 1 if self.shared else leaves
        return self.fill([_Hole() for _ in range(count)])


def _are_alike(leaf: Any, other: Any) -> bool:
    """Tell if two leaves are equal: arrays by their bytes, and what is no number to its like."""
    if leaf is other:
        return True
    if isinstance(leaf, np.ndarray) or isinstance(other, np.ndarray):
        return bool(
            type(leaf) is type(other)
            and (leaf.dtype, leaf.shape) == (other.dtype, other.shape)
            and not leaf.dtype.hasobject
            and leaf.tobytes() == other.tobytes()
        )
    if isinstance(leaf, float) and isinstance(other, float) and math.isnan(leaf):
        return math.isnan(other)
    try:
        return bool(leaf == other)
    except ValueError:  # of a table, whose comparison has many answers
        return False


class _Hole:
    """Stands where an activation has a tensor."""

    def __repr__(self) -> str:
        return "tensor"


def taken_apart(activation: Activation) -> tuple[list[Tensor], Structure]:
    """Return the tensors of an activation, and its structure.

    A tensor that is several of its leaves is returned once. If it were taken for several, what is
    changed in place would show in one of them alone, and the order in which autograd adds up the
    gradients of its uses would be another. Dataclasses that torch does not know yet are registered
    with it, so that it looks into them.
    """
    leaves, spec = _leaves(activation)
    return _divided(leaves, spec, Tensor)


def _divided(leaves: list[Any], spec: pytree.TreeSpec, kind: type) -> tuple[list[Any], Structure]:
    """Return the distinct leaves of a kind, and the structure that holds them and the others."""
    chosen = [leaf for leaf in leaves if isinstance(leaf, kind)]
    others: tuple[tuple[int, Any], ...] = ()
    if len(chosen) < len(leaves):
        numbered = enumerate(leaves)
        others = tuple((place, leaf) for place, leaf in numbered if not isinstance(leaf, kind))
    distinct = list({id(leaf): leaf for leaf in chosen}.values())
    if len(distinct) == len(chosen):
        return chosen, Structure(spec, others)
    indices = {id(leaf): index for index, leaf in enumerate(distinct)}
    return distinct, Structure(spec, others, tuple(indices[id(leaf)] for leaf in chosen))


def tensors_of(activation: Activation) -> list[Tensor]:
    """Return the tensors of an activation in a fixed order, each of them once."""
    return [activation] if isinstance(activation, Tensor) else taken_apart(activation)[0]


def describe_tensors(tensors: Iterable[Tensor]) -> str:
    """Return types and shapes for a message, such as `float32[16, 64], int64[16]`."""
    return ", ".join(
        f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" for tensor in tensors
    )


def differentiable(tensor: Tensor) -> bool:
    """Tell if a tensor's type can have a gradient."""
    return tensor.is_floating_point() or tensor.is_complex()


def repeated_dimensions(tensor: Tensor) -> tuple[int, ...]:
    """Return the dimensions along which all of a tensor lies in the memory of one slice."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return tuple(
        dimension for dimension, (size, stride) in enumerate(sizes) if stride == 0 and size > 1
    )


def versions_of(activation: Activation) -> list[int]:
    """Return how often each tensor has been changed in place, to compare it with a later count."""
    return [tensor._version for tensor in tensors_of(activation)]


def leaves_like(activation: Activation) -> Activation:
    """Return an activation whose tensors share memory with these but have no history.

    Those that require a gradient are leaves that require one.
    """
    tensors, structure = taken_apart(activation)
    return structure.fill(
        [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
    )


def copied(activation: Activation, *, keep_history: bool = False) -> Activation:
    """Return an activation with copies of the tensors, by default without their history."""
    tensors, structure = taken_apart(activation)
    return structure.fill(
        [(tensor if keep_history else tensor.detach()).clone() for tensor in tensors]
    )


def device_of(activation: Activation) -> torch.device:
    """Return the device of the first tensor, the host if there is none."""
    return next((tensor.device for tensor in tensors_of(activation)), torch.device("cpu"))


def _structure_of(emptied: Activation) -> Structure:
    return _divided(*_leaves(emptied), _Hole)[1]


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


def moved(activation: Activation, device: torch.device) -> Activation:
    """Return an activation whose tensors are on a device."""
    return mapped(activation, lambda tensor: tensor.to(device))


def mapped(activation: Activation, function: Callable[[Tensor], Tensor]) -> Activation:
    """Return an activation in whose place of each tensor stands what a function makes of it."""
    if isinstance(activation, Tensor):
        return function(activation)
    tensors, structure = taken_apart(activation)
    return structure.fill([function(tensor) for tensor in tensors])
