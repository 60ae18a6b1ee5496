"""What the engine asks of a transport: channels between a rank's stages and their neighbours."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hpc_lpm.engine.job import Job
from hpc_lpm.engine.pipeline.boundary import MessagePart, TensorSpec
from hpc_lpm.engine.topology import PipelineTopology

RECEIVES_AHEAD = 2
"""The number of messages on each channel whose receives are posted before they are needed."""


class Channel(Protocol):
    """Carries messages in one direction between this rank and a neighbour, in order.

    A message is a tuple of tensors, some of which may be missing. Only its place among the others
    identifies it: the programmes of both sides agree.
    """

    bytes_sent: int

    def send(self, parts: Sequence[MessagePart]) -> None:
        """Start sending a message and return; its memory is held until it has left.

        A spec in place of a tensor says that there is none.
        """

    def expect(self, messages: Iterable[tuple[TensorSpec, ...]]) -> None:
        """Announce the messages to come; the first few receives are posted at once."""

    def receive(self) -> tuple[Tensor | None, ...]:
        """Wait for the next message and return it, on the stage's device.

        None stands for a tensor that the sender did not have.

        Raises:
            BoundaryError: if it does not come in time, or is not what was announced.
        """

    def release_sent(self) -> None:
        """Release the memory of the messages that have left."""

    def flush(self) -> None:
        """Wait until every message has left.

        Raises:
            BoundaryError: if the neighbour does not take one in time.
        """


@dataclass(frozen=True)
class TiedChannels:
    """The channels between this rank and another one that holds the same weights.

    Gradients go to the rank that owns the weights, weights to the rank that has the copies.
    """

    gradients: Channel
    weights: Channel


@dataclass(frozen=True)
class NeighbourChannels:
    """Channels to and from the neighbours; those to one that does not exist are never used."""

    from_previous: Channel
    to_previous: Channel
    from_next: Channel
    to_next: Channel

    def senders(self) -> tuple[Channel, Channel]:
        """Return the channels that this stage sends through."""
        return self.to_previous, self.to_next


@dataclass(frozen=True)
class StageChannels:
    """The channels of one stage.

    `agreed` carries messages that were announced. `described` carries those that say themselves
    what they consist of; None if the transport can carry only one of the two kinds, and `agreed`
    then does.
    """

    agreed: NeighbourChannels
    described: NeighbourChannels | None

    def senders(self) -> tuple[Channel, ...]:
        """Return all channels to neighbours that this stage sends through."""
        described = self.described.senders() if self.described else ()
        return *self.agreed.senders(), *described


@dataclass(frozen=True)
class RankChannels:
    """The channels of one rank: of each stage that it holds, in order, and to tied weights.

    `tied` has the channels to each device with weights that are tied to weights here, by its
    number.
    """

    stages: list[StageChannels]
    tied: dict[int, TiedChannels]


@dataclass(frozen=True)
class Circumstances:
    """The circumstances under which a transport is opened.

    `tied_devices` are the pairs (owner, copy) of devices that hold tied weights. `own_devices` is
    True if no two ranks compute on the same device. A transport puts on `resources` what must be
    stopped or closed at the end of the run.
    """

    job: Job
    topology: PipelineTopology
    tied_devices: Sequence[tuple[int, int]]
    device: torch.device
    own_devices: bool
    receive_timeout_seconds: float
    progress_thread: bool
    resources: ExitStack

    def tied_to(self, device: int) -> list[int]:
        """Return the devices with weights that are tied to weights on `device`."""
        pairs = (pair for pair in self.tied_devices if device in pair)
        return [copy if device == owner else owner for owner, copy in pairs]
