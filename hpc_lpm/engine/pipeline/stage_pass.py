"""The forward and the backward pass of one micro-batch through one stage."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpc_lpm.engine.faults import ChangedInputError
from hpc_lpm.models.activation import Activation
from hpc_lpm.models.dropout import Dropout, set_dropout_stream
from hpc_lpm.models.layered import as_tuple

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class InFlight:
    """A micro-batch between its forward and its backward pass.

    `outputs` is None if no graph was kept and the stage is to be replayed; `version` is the number
    of updates before the forward pass.
    """

    inputs: Activation
    outputs: Activation | None = None
    targets: Tensor | None = None
    loss: Tensor | None = None
    version: int = 0


class StagePass:
    """Runs one stage's layers, as often as needed and always with the same result.

    Dropout depends on `seed` and on the number of the micro-batch within the training. A pass
    without a graph leaves every buffer, such as BatchNorm's running statistics, as it was.
    """

    def __init__(
        self, module: nn.Module, layers: dict[int, nn.Module], seed: int, loss: Loss | None
    ) -> None:
        self._module = module
        self._stochastic = {
            index: layer
            for index, layer in layers.items()
            if any(isinstance(part, Dropout) for part in layer.modules())
        }
        self._seed = seed
        self._loss = loss

    def forward(self, flight: InFlight, number: int, *, keep_graph: bool) -> Activation:
        """Run the stage on `flight.inputs`; the last stage also computes the loss.

        Args:
            flight: the micro-batch, which keeps outputs and loss if `keep_graph`.
            number: the micro-batch's number within the whole training.
            keep_graph: False if the stage will be replayed before the backward pass.

        Raises:
            ChangedInputError: if a layer has changed the input in place, so that the stage cannot
                be run again.
        """
        for index, layer in self._stochastic.items():
            set_dropout_stream(layer, self._seed, index, number)
        versions = _versions(flight.inputs)
        outputs: Activation = (
            self._module(flight.inputs)
            if keep_graph
            else self._forward_without_trace(flight.inputs)
        )
        if _versions(flight.inputs) != versions:
            raise ChangedInputError
        if not keep_graph:
            return outputs
        flight.outputs = outputs
        if self._loss is not None and flight.targets is not None:
            flight.loss = self._loss(_single(outputs), flight.targets)
        return outputs

    def backward(
        self, flight: InFlight, gradients: Sequence[Tensor], loss_divisor: float
    ) -> tuple[Tensor, ...]:
        """Accumulate the weights' gradients and return the floating-point inputs' gradients.

        Args:
            flight: the micro-batch, with the graph of its forward pass.
            gradients: the gradients of the floating-point outputs; empty on the last stage.
            loss_divisor: M if all M micro-batches of a step are of the same size; see
                `MicroBatches.loss_divisor`.
        """
        if flight.loss is not None:
            torch.autograd.backward(flight.loss / loss_divisor)
        else:
            assert flight.outputs is not None
            roots = [t for t in as_tuple(flight.outputs) if t.is_floating_point()]
            torch.autograd.backward(roots, list(gradients))
        return tuple(_gradient_of(t) for t in as_tuple(flight.inputs) if t.is_floating_point())

    @torch.no_grad()
    def _forward_without_trace(self, inputs: Activation) -> Activation:
        buffers = list(self._module.buffers())
        saved = [buffer.clone() for buffer in buffers]
        outputs: Activation = self._module(inputs)
        for buffer, before in zip(buffers, saved, strict=True):
            # Through `.data`: graphs in flight hold running statistics, on which no gradient
            # depends, and autograd would refuse a change that it counts.
            buffer.data.copy_(before)
        return outputs


def _versions(activation: Activation) -> list[int]:
    return [tensor._version for tensor in as_tuple(activation)]


def _gradient_of(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _single(outputs: Activation) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise TypeError("the last layer returned a tuple; the loss takes a single tensor")
    return outputs


def ready_for_autograd(tensors: Iterable[Tensor], device: torch.device) -> tuple[Tensor, ...]:
    """Return received tensors on the device; the floating-point ones require gradients."""
    return tuple(
        t.to(device).requires_grad_(t.is_floating_point() and torch.is_grad_enabled())
        for t in tensors
    )
