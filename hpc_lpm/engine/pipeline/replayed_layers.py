"""Layers that are run again in the backward pass, under the weights that they have then.

The `live` policy runs backward through a graph that reads the current weights. A graph that keeps
something computed *from* the weights, such as a normalised, masked or converted weight, would read
what was computed from the old ones. Such a layer is not run with a graph; its backward pass runs it
again and then backward, as Features Replay does with a whole stage (Huo et al. 2018).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpc_lpm.activation import (
    Activation,
    Structure,
    differentiable,
    leaves_like,
    taken_apart,
    tensors_of,
)
from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.layer_calls import LayerCalls
from hpc_lpm.models.module_state import ModuleState


class ReplayedLayers:
    """Runs the layers of a stage, those in `layers` without a graph until they run backward."""

    def __init__(self, calls: LayerCalls, compute_format: ComputeFormat) -> None:
        self.layers: frozenset[int] = frozenset()
        self._calls = calls
        self._format = compute_format

    def call(self, index: int, layer: nn.Module, activation: Activation) -> Activation:
        """Run one layer."""
        if index not in self.layers:
            return layer(activation)
        replay = _Replay(self, index, layer, self._calls.number)
        tensors, replay.given = taken_apart(activation)
        # Without a tensor that requires a gradient, autograd would not run the function backward.
        learning = torch.zeros(0, requires_grad=any(p.requires_grad for p in layer.parameters()))
        made: Sequence[Tensor] = _RunAgain.apply(replay, learning, *tensors)  # type: ignore[no-untyped-call]
        assert replay.returned is not None
        return replay.returned.fill(made)

    def again(self, replay: "_Replay", tensors: Sequence[Tensor]) -> tuple[Activation, Activation]:
        """Run a layer with a graph, and return its inputs, as leaves, and its outputs.

        What it draws at random is what it drew before; what it remembers does not change.
        """
        assert replay.given is not None
        inputs = leaves_like(replay.given.fill(tensors))
        number, self._calls.number = self._calls.number, replay.number
        state = ModuleState(replay.layer)
        try:
            self._calls.set_generators(replay.index)
            with torch.enable_grad(), self._format.autocast(self._calls.device):
                return inputs, replay.layer(inputs)
        finally:
            state.restore()
            self._calls.number = number


class _Replay:
    """One call of a layer that is to be run again."""

    def __init__(self, owner: ReplayedLayers, index: int, layer: nn.Module, number: int) -> None:
        self.owner, self.index, self.layer, self.number = owner, index, layer, number
        self.given: Structure | None = None
        self.returned: Structure | None = None


class _RunAgain(torch.autograd.Function):
    """A layer as one node of the graph."""

    @staticmethod
    def forward(ctx: Any, replay: _Replay, learning: Tensor, *tensors: Tensor) -> Any:
        assert replay.given is not None
        ctx.replay = replay
        ctx.requires_gradient = [tensor.requires_grad for tensor in tensors]
        ctx.save_for_backward(*tensors)
        given = [tensor.detach() for tensor in tensors]
        outputs, replay.returned = taken_apart(replay.layer(replay.given.fill(given)))
        ctx.mark_non_differentiable(*(tensor for tensor in outputs if not differentiable(tensor)))
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = [
            tensor.detach().requires_grad_(required)
            for tensor, required in zip(ctx.saved_tensors, ctx.requires_gradient, strict=True)
        ]
        inputs, outputs = ctx.replay.owner.again(ctx.replay, saved)
        roots = [
            (tensor, gradient)
            for tensor, gradient in zip(tensors_of(outputs), gradients, strict=True)
            if gradient is not None and tensor.requires_grad
        ]
        if roots:
            torch.autograd.backward([root for root, _ in roots], [g for _, g in roots])
        return None, None, *(tensor.grad for tensor in tensors_of(inputs))
