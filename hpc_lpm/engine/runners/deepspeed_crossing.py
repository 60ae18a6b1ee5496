"""Packs whatever a stage returns into the one contiguous tensor that DeepSpeed sends best.

DeepSpeed's transport refuses tensors that are not contiguous, and it runs backward once for each
tensor of a tuple. Layers on both sides of a boundary therefore pack what a stage returns into one
contiguous tensor and unpack it again.
"""

import torch
from torch import Tensor

from hpc_lpm.engine.pipeline.boundary import BoundarySpec, TensorSpec
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.models.activation import Activation
from hpc_lpm.models.layered import as_tuple


def adapt_crossing(
    module: PlannedModule, incoming: BoundarySpec | None, outgoing: BoundarySpec | None
) -> None:
    """Add the layers that pack and unpack to a stage whose boundaries need them.

    A boundary that is crossed by one contiguous tensor needs none.

    Args:
        module: the stage.
        incoming: what crosses the boundary to the stage before, None for the first stage.
        outgoing: what crosses the boundary to the stage after, None for the last stage.
    """
    if outgoing is not None and _needs_adapting(outgoing):
        module.forward_funcs.append(_Leave(outgoing))
    if incoming is not None and _needs_adapting(incoming):
        module.forward_funcs.insert(0, _Enter(incoming))


def _needs_adapting(spec: BoundarySpec) -> bool:
    lone = spec.tensors[0]
    return spec.packed or lone.strides != torch.empty(lone.shape, device="meta").stride()


def _order(spec: TensorSpec) -> list[int]:
    """Return the dimensions from the slowest to the fastest in memory, samples first."""
    dimensions = list(range(len(spec.shape)))
    strides = spec.strides
    if strides is None:
        return dimensions
    order = sorted(dimensions, key=lambda dimension: -strides[dimension])
    return order if order[:1] == [0] else dimensions


class _Leave:
    """Makes an activation contiguous, and packs a tuple of tensors into one of [n, elements]."""

    def __init__(self, spec: BoundarySpec) -> None:
        self._orders = [_order(tensor) for tensor in spec.tensors]
        self._packed = spec.packed

    def __call__(self, activation: Activation) -> Tensor:
        in_order = [
            tensor.permute(order).contiguous()
            for tensor, order in zip(as_tuple(activation), self._orders, strict=True)
        ]
        if not self._packed:
            return in_order[0]
        return torch.cat([tensor.flatten(1) for tensor in in_order], dim=1)


class _Enter:
    """Undoes `_Leave` on the other side of the boundary."""

    def __init__(self, spec: BoundarySpec) -> None:
        self._packed = spec.packed
        self._dtypes = [tensor.dtype for tensor in spec.tensors]
        orders = [_order(tensor) for tensor in spec.tensors]
        # The shapes of one sample, in the order in which its elements lie in memory.
        self._shapes = [
            [tensor.shape[dimension] for dimension in order[1:]]
            for tensor, order in zip(spec.tensors, orders, strict=True)
        ]
        self._back = [[order.index(d) for d in range(len(order))] for order in orders]

    def __call__(self, received: Tensor) -> Activation:
        if not self._packed:
            return received.permute(self._back[0])
        widths = [int(torch.Size(shape).numel()) for shape in self._shapes]
        parts = torch.split(received, widths, dim=1)
        return tuple(
            part.reshape(len(received), *shape).contiguous().to(dtype).permute(back)
            for part, shape, dtype, back in zip(
                parts, self._shapes, self._dtypes, self._back, strict=True
            )
        )
