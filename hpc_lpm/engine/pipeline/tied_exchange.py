"""Exchanges gradients and weights of tied parameters between devices of a pipeline."""

from collections.abc import Iterable

import torch
from torch import nn

from hpc_lpm.engine.pipeline.boundary import MessagePart, TensorSpec
from hpc_lpm.engine.pipeline.transport.channel import TiedChannels
from hpc_lpm.engine.ties import TiedParameters


class TiedExchange:
    """This device's end of its exchanges with others, which `channels` has by their number."""

    def __init__(self, tied: TiedParameters, channels: dict[int, TiedChannels]) -> None:
        self._tied = tied
        self._gradients = {device: pair.gradients for device, pair in channels.items()}
        self._weights = {device: pair.weights for device, pair in channels.items()}

    @property
    def bytes_sent(self) -> int:
        """The bytes sent so far."""
        channels = (*self._gradients.values(), *self._weights.values())
        return sum(channel.bytes_sent for channel in channels)

    def expect_step(self) -> None:
        """Announce the messages that come in an optimizer step."""
        for device, channel in self._gradients.items():
            if owned := self._tied.owned.get(device):
                channel.expect([_specs(owned)])
        for device, channel in self._weights.items():
            if copied := self._tied.copied.get(device):
                channel.expect([_specs(copied)])

    def flush(self) -> None:
        """Wait until every message has left."""
        for channel in (*self._gradients.values(), *self._weights.values()):
            channel.flush()

    def send_gradient(self, device: int) -> None:
        """Send the gradients of the copies to their owner on `device`, and clear them."""
        copied = self._tied.copied[device]
        self._gradients[device].send([_gradient_of(parameter) for parameter in copied])
        for parameter in copied:
            parameter.grad = None

    def receive_gradient(self, device: int) -> None:
        """Take the gradients of the copies on `device`, whose owners are here."""
        self._tied.take_gradients(device, self._gradients[device].receive())

    def send_weights(self, device: int) -> None:
        """Send the present weights of the owners here to their copies on `device`."""
        # Cloned, since the next update may come before the message has left.
        self._weights[device].send([p.detach().clone() for p in self._tied.owned[device]])

    @torch.no_grad()
    def receive_weights(self, device: int) -> None:
        """Set the copies here to the weights that their owner on `device` has sent."""
        received = self._weights[device].receive()
        for parameter, weights in zip(self._tied.copied[device], received, strict=True):
            assert weights is not None
            parameter.copy_(weights)


def _specs(parameters: Iterable[nn.Parameter]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(parameter) for parameter in parameters)


def _spec(parameter: nn.Parameter) -> TensorSpec:
    return TensorSpec(tuple(parameter.shape), parameter.dtype)


def _gradient_of(parameter: nn.Parameter) -> MessagePart:
    return _spec(parameter) if parameter.grad is None else parameter.grad
