"""Exchanges gradients and weights of tied parameters between stages."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from hpc_lpm.engine.pipeline.boundary import MessagePart, TensorSpec
from hpc_lpm.engine.pipeline.transport.channel import Channel, TiedChannels
from hpc_lpm.engine.ties import TiedParameters, add_gradient


class TiedExchange:
    """One stage's end of its exchanges with other stages, which `channels` has by their number."""

    def __init__(self, tied: TiedParameters, channels: dict[int, TiedChannels]) -> None:
        self._tied = tied
        self._gradients = {stage: pair.gradients for stage, pair in channels.items()}
        self._weights = {stage: pair.weights for stage, pair in channels.items()}

    @property
    def bytes_sent(self) -> int:
        """The bytes sent so far."""
        channels = (*self._gradients.values(), *self._weights.values())
        return sum(channel.bytes_sent for channel in channels)

    def of_each_step(self) -> Iterator[tuple[Channel, tuple[TensorSpec, ...]]]:
        """Yield the channels over which a message comes in every step, with its tensors."""
        for stage, channel in self._gradients.items():
            if owned := self._tied.owned.get(stage):
                yield channel, _specs(owned)
        for stage, channel in self._weights.items():
            if copied := self._tied.copied.get(stage):
                yield channel, _specs(copied)

    def flush(self) -> None:
        """Wait until every message has left."""
        for channel in (*self._gradients.values(), *self._weights.values()):
            channel.flush()

    def send_gradient(self, stage: int) -> None:
        """Send the accumulated gradients of the copies to their owner on `stage` and clear them."""
        copied = self._tied.copied[stage]
        self._gradients[stage].send([_gradient_of(parameter) for parameter in copied])
        for parameter in copied:
            parameter.grad = None

    def receive_gradient(self, stage: int) -> None:
        """Add the gradients of the copies on `stage` to the gradients of their owners here."""
        # In the order of the layers, in which sequential training adds them up.
        self._tied.collect_gradients()
        received = self._gradients[stage].receive()
        for parameter, gradient in zip(self._tied.owned[stage], received, strict=True):
            if gradient is not None:
                add_gradient(parameter, gradient.to(parameter.device))

    def send_weights(self, stage: int) -> None:
        """Send the present weights of the owners here to their copies on `stage`."""
        # Cloned, since the next update may come before the message has left.
        self._weights[stage].send([p.detach().clone() for p in self._tied.owned[stage]])

    @torch.no_grad()
    def receive_weights(self, stage: int) -> None:
        """Set the copies here to the weights that their owner on `stage` has sent."""
        received = self._weights[stage].receive()
        for parameter, weights in zip(self._tied.copied[stage], received, strict=True):
            assert weights is not None
            parameter.copy_(weights)


def _specs(parameters: Iterable[nn.Parameter]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(parameter) for parameter in parameters)


def _spec(parameter: nn.Parameter) -> TensorSpec:
    return TensorSpec(tuple(parameter.shape), parameter.dtype)


def _gradient_of(parameter: nn.Parameter) -> MessagePart:
    return _spec(parameter) if parameter.grad is None else parameter.grad
