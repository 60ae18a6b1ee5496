"""One layer of a captured module: its own weights, and its code in either mode."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpc_lpm.activation import Activation
from hpc_lpm.errors import InputError
from hpc_lpm.models.capture.tables import LayerTables


@dataclass(frozen=True)
class Programme:
    """What a layer runs in one mode: `code(layer, activation, tables)`."""

    code: Callable[[nn.Module, Activation, LayerTables | None], Activation]
    tables: LayerTables | None


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of a layer, with its value in the original module."""

    tensor: Tensor
    persistent: bool = True


class CapturedLayer(nn.Module):
    """A part of a captured module, which computes what the module's forward does there.

    It holds parameters and buffers under names of its own, and chooses its code by its mode.
    """

    def __init__(
        self,
        weights: Mapping[str, Weight],
        bodies: Mapping[str, nn.Module],
        training: Programme,
        evaluation: Programme,
    ) -> None:
        super().__init__()
        for name, weight in weights.items():
            copy = weight.tensor.detach().clone()
            if isinstance(weight.tensor, nn.Parameter):
                trained = weight.tensor.requires_grad
                self.register_parameter(name, nn.Parameter(copy, requires_grad=trained))
            else:
                self.register_buffer(name, copy, persistent=weight.persistent)
        for name, body in bodies.items():
            self.add_module(name, body)
        self._training_programme = training
        self._evaluation_programme = evaluation

    def forward(self, activation: Activation) -> Activation:
        """Compute what crosses to the next layer, or the module's output."""
        programme = self._training_programme if self.training else self._evaluation_programme
        return programme.code(self, activation, programme.tables)


class LayerBuilder:
    """Builds a layer of a captured module, as often as asked, until its weights are released."""

    def __init__(
        self,
        weights: Mapping[str, Weight],
        bodies: Mapping[str, nn.Module],
        training: Programme,
        evaluation: Programme,
    ) -> None:
        self._weights: Mapping[str, Weight] | None = dict(weights)
        self._bodies = dict(bodies)
        self._training = training
        self._evaluation = evaluation

    def __call__(self) -> nn.Module:
        """Return the layer with copies of the module's weights.

        Raises:
            InputError: if the weights have been released.
        """
        if self._weights is None:
            raise InputError(
                "the weights of this layer have been released: build it before, or create the "
                "model anew."
            )
        return CapturedLayer(self._weights, self._bodies, self._training, self._evaluation)

    def tensors(self) -> dict[str, Tensor]:
        """Return the module's own parameters and buffers by the layer's names."""
        return {name: weight.tensor for name, weight in (self._weights or {}).items()}

    def release(self) -> None:
        """Let go of the weights, so that their memory is free once nobody else holds them."""
        self._weights = None


def same_layout(tensor: Tensor) -> tuple[object, ...]:
    """Return what must be equal for two tensors to take the same time."""
    return (
        str(tensor.dtype),
        tuple(tensor.shape),
        tensor.stride() if tensor.layout == torch.strided else (),
        tensor.requires_grad,
    )
