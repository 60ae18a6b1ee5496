"""Finds layers whose graph keeps something that was computed from their weights."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpc_lpm.activation import Activation, tensors_of
from hpc_lpm.engine.pipeline.weight_policy import unchanged


class _Origins(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows through every operation what was computed from weights, and what from inputs.

    Memory is followed, not tensors, so that views and changes in place count too.
    """

    def __init__(self, weights: Iterable[Tensor], inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept: dict[int, torch.UntypedStorage] = {}
        self._of_parameters = {self._key(tensor) for tensor in weights}
        self._from_weights = set(self._of_parameters)
        self._from_inputs = {self._key(tensor) for tensor in inputs}

    def derived(self, tensor: Tensor) -> bool:
        """Tell if a tensor was computed from weights alone, and does not lie in their memory."""
        key = self._key(tensor)
        return (
            key in self._from_weights
            and key not in self._from_inputs
            and key not in self._of_parameters
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        changed = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = kwargs.get(argument.name, args[place] if place < len(args) else None)
                changed += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        origins = {self._key(tensor) for tensor in given}
        of_changed = {self._key(tensor) for tensor in changed}
        if origins & self._from_weights:
            self._from_weights |= of_changed
        if origins & self._from_inputs:
            self._from_inputs |= of_changed
        return returned

    def _key(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        # Kept, so that no address is used again by another storage meanwhile.
        address: int = storage._cdata
        self._kept[address] = storage
        return address


def keeps_derived_weights(
    layer: nn.Module,
    inputs: Activation,
    reads_anew: Callable[[Tensor], bool],
    note: Callable[[Tensor], Tensor],
) -> tuple[Activation, bool]:
    """Run a layer, and tell if its graph keeps something that was computed from its weights.

    Args:
        layer: whose weights are meant.
        inputs: what the layer takes.
        reads_anew: tells of a tensor that a graph keeps if the weight policy computes it anew in
            the backward pass.
        note: is called with every tensor that the graph keeps, and returns it.

    Returns:
        What the layer returned, and whether its graph keeps anything of that kind.
    """
    found = False
    origins = _Origins(layer.parameters(), tensors_of(inputs))

    def keep(tensor: Tensor) -> Tensor:
        nonlocal found
        found = found or (origins.derived(tensor) and not reads_anew(tensor))
        return note(tensor)

    with torch.autograd.graph.saved_tensors_hooks(keep, unchanged), origins:
        outputs = layer(inputs)
    return outputs, found
