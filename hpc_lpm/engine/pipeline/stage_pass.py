"""The forward and the backward pass of one micro-batch through one stage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hpc_lpm.activation import Activation, taken_apart, tensors_of, versions_of
from hpc_lpm.engine.faults import ChangedInputError
from hpc_lpm.engine.pipeline.boundary import BoundarySpec
from hpc_lpm.engine.pipeline.rehearsal import StageRehearsal
from hpc_lpm.engine.pipeline.replayed_layers import ReplayedLayers
from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.layer_calls import LayerCalls
from hpc_lpm.models.losses import Loss
from hpc_lpm.models.module_state import ModuleState
from hpc_lpm.split_backward.halves import SplitBackward


@dataclass
class InFlight:
    """A micro-batch between its forward and its backward pass.

    `incoming` and `outgoing` say what has entered the stage and what leaves it. `outputs` is None
    if no graph was kept and the stage is to be replayed; `version` is the number of updates before
    the forward pass. `entrance` is the leaf that the graph begins at if gradients of the inputs
    are wanted, and `split` the backward pass between its halves.
    """

    inputs: Activation
    incoming: BoundarySpec | None = None
    outgoing: BoundarySpec | None = None
    outputs: Activation = None
    targets: Activation = None
    loss: Tensor | None = None
    version: int = 0
    gradients: "list[Tensor | None]" = field(default_factory=list)
    entrance: Tensor | None = None
    split: SplitBackward | None = None


class StagePass:
    """Runs one stage's layers, as often as needed and always with the same result.

    A pass without a graph leaves everything that the layers remember, such as BatchNorm's running
    statistics, as it was.

    Args:
        calls: runs the stage's layers.
        compute_format: precision and memory format of the layers.
        loss: of the last stage, None on the others.
    """

    def __init__(
        self,
        calls: LayerCalls,
        compute_format: ComputeFormat,
        loss: Loss | None,
    ) -> None:
        self._calls = calls
        self._format = compute_format
        self._loss = loss
        self._replayed = ReplayedLayers(calls, compute_format)
        self.copies_inputs = False

    def heed(self, rehearsal: StageRehearsal) -> None:
        """Do what a rehearsal has found to be necessary.

        A layer that changes its input in place gets a copy, and a layer whose graph keeps what was
        computed from its weights runs again in the backward pass of a lagged micro-batch.
        """
        self.copies_inputs = rehearsal.changes_inputs
        self._replayed.layers = frozenset(rehearsal.deriving)

    def forward(
        self,
        flight: InFlight,
        number: int,
        *,
        training: bool,
        keep_graph: bool,
        lagged: bool = False,
    ) -> Activation:
        """Run the stage on `flight.inputs`; the last stage also computes the loss.

        Args:
            flight: the micro-batch, which keeps outputs and loss if `keep_graph`.
            number: the micro-batch's number within the whole training, or within an evaluation.
            training: which of the two it is.
            keep_graph: False if the stage will be replayed before the backward pass.
            lagged: True if the weights are updated before the backward pass.

        Raises:
            ChangedInputError: if a layer has changed the input in place, so that the stage cannot
                be run again.
        """
        self._calls.number = number
        self._calls.training = training
        versions = versions_of(flight.inputs)
        if keep_graph:
            call = self._replayed.call if lagged and self._replayed.layers else None
            outputs = self._run(_entered(flight, copied=self.copies_inputs), call)
        else:
            outputs = self._forward_without_trace(flight)
        if versions_of(flight.inputs) != versions:
            raise ChangedInputError
        if not keep_graph:
            return outputs
        flight.outputs = outputs
        if self._loss is not None:
            flight.loss = self._calls.loss(self._loss, outputs, flight.targets)
        return outputs

    def backward(
        self, flight: InFlight, gradients: Sequence[Tensor | None], loss_divisor: float
    ) -> tuple[Tensor | None, ...]:
        """Accumulate the weights' gradients and return those of the inputs that require one.

        A tensor on which the loss does not depend has no gradient, and neither has a parameter.

        Args:
            flight: the micro-batch, with the graph of its forward pass.
            gradients: the gradients of the outputs that require one; empty on the last stage.
            loss_divisor: M if all M micro-batches of a step are of the same size; see
                `MicroBatches.loss_divisor`.
        """
        roots, arrived = self._roots(flight, gradients, loss_divisor)
        if roots:
            torch.autograd.backward(roots, arrived)
        return tuple(flight.gradients)

    def backward_input(
        self, flight: InFlight, gradients: Sequence[Tensor | None], loss_divisor: float
    ) -> tuple[Tensor | None, ...]:
        """Run the first half of a backward pass and return the gradients of the inputs.

        Of the micro-batch nothing stays alive but what `backward_weights` needs. Arguments and
        result are those of `backward`.
        """
        flight.split = SplitBackward()
        roots, arrived = self._roots(flight, gradients, loss_divisor)
        flight.outputs = flight.targets = flight.loss = None
        flight.split.input_half(
            roots, arrived, [] if flight.entrance is None else [flight.entrance]
        )
        flight.inputs = None
        entered = tuple(flight.gradients)
        # The graph has this list too.
        flight.gradients.clear()
        return entered

    def backward_weights(self, flight: InFlight) -> None:
        """Run the second half: accumulate those gradients of weights that could wait."""
        assert flight.split is not None
        flight.split.weight_half()

    def _roots(
        self, flight: InFlight, gradients: Sequence[Tensor | None], loss_divisor: float
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return the tensors that a backward pass starts from, and their gradients."""
        if flight.loss is not None:
            learns = flight.loss.requires_grad
            return ([flight.loss / loss_divisor], [None]) if learns else ([], [])
        crossing = zip(self._crossing(flight), gradients, strict=True)
        roots = [
            (tensor, gradient)
            for tensor, gradient in crossing
            if gradient is not None and tensor.requires_grad
        ]
        return [tensor for tensor, _ in roots], [gradient for _, gradient in roots]

    @staticmethod
    def _crossing(flight: InFlight) -> list[Tensor]:
        assert flight.outgoing is not None
        crossing = zip(flight.outgoing.tensors, tensors_of(flight.outputs), strict=True)
        return [tensor for spec, tensor in crossing if spec.requires_gradient]

    def _run(self, inputs: Activation, call: Any = None) -> Activation:
        device = self._calls.device
        with self._format.autocast(device):
            return self._calls.run(inputs, call)

    def _forward_without_trace(self, flight: InFlight) -> Activation:
        """Run forward and leave everything as it was; outputs tell if they require a gradient.

        Autograd keeps nothing of it: with a graph that holds no tensors, operations choose the same
        kernels as in the pass whose graph is used.
        """
        state = ModuleState(*self._calls.layers.values())
        with torch.autograd.graph.saved_tensors_hooks(_forget, _never_asked_for):
            outputs = self._run(_entered(flight, copied=self.copies_inputs))
        state.restore()
        return outputs


def _forget(tensor: Tensor) -> None:
    """Keep nothing of a tensor for the backward pass."""


def _never_asked_for(_: None) -> Tensor:
    raise RuntimeError("a pass without a graph was run backward: this is a defect of the toolkit")


def _entered(flight: InFlight, *, copied: bool) -> Activation:
    """Return a micro-batch's inputs as the beginning of a graph that keeps their gradients.

    If `copied`, layers may change them in place.
    """
    tensors, structure = taken_apart(flight.inputs)
    learning = [tensor for tensor in tensors if tensor.requires_grad]
    flight.gradients = [None] * len(learning)
    entered: Iterator[Tensor] = iter(())
    if learning:
        flight.entrance = learning[0].new_zeros(0).requires_grad_()
        detached = [tensor.detach() for tensor in learning]
        made = _Entry.apply(flight.gradients, flight.entrance, *detached)  # type: ignore[no-untyped-call]
        entered = iter(made)
    inputs = [next(entered) if tensor.requires_grad else tensor for tensor in tensors]
    return structure.fill([tensor.clone() for tensor in inputs] if copied else inputs)


class _Entry(torch.autograd.Function):
    """Lets tensors into a graph, and keeps their gradients as they come.

    Autograd would lay out the gradient of a leaf like the leaf, and copy it for that; and the graph
    would keep the leaf. Here the leaf is `entrance`, which is empty.
    """

    @staticmethod
    def forward(
        ctx: Any, gradients: list[Tensor | None], entrance: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.gradients = gradients
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
        ctx.gradients[:] = gradients
        return (None, None, *(None for _ in gradients))
