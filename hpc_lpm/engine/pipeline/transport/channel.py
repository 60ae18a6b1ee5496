"""What the engine asks of a transport: four channels a stage, each for one direction."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.pipeline.boundary import TensorSpec
from hpc_lpm.engine.topology import PipelineTopology

RECEIVES_AHEAD = 2
"""Messages whose receives are posted before they are needed, on each channel."""


class Channel(Protocol):
    """Messages in one direction between this rank and a neighbour, delivered in order.

    A message is a tuple of tensors. Its order among the others is all that names it: both sides
    follow programmes that agree.
    """

    bytes_sent: int

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Start sending a message and return; its memory is held until it has left."""

    def expect(self, messages: Iterable[tuple[TensorSpec, ...]]) -> None:
        """Announce the messages to come; the first few receives are posted at once."""

    def receive(self) -> tuple[Tensor, ...]:
        """Return the next message on the stage's device, waiting for it if it is not here yet.

        Raises:
            BoundaryError: if it does not come in time, or not as announced.
        """

    def release_sent(self) -> None:
        """Let go of the messages that have left."""

    def flush(self) -> None:
        """Wait until every message has left.

        Raises:
            BoundaryError: if the neighbour does not take one in time.
        """


@dataclass(frozen=True)
class TiedChannels:
    """The channels between this stage and one that holds the same weights, each in one direction.

    Gradients go to the stage that owns the weights, weights to the one with the copies.
    """

    gradients: Channel
    weights: Channel


@dataclass(frozen=True)
class StageChannels:
    """The channels of one stage; those of a neighbour that does not exist are never used.

    `tied` has those to the stages that hold weights tied to this stage's, by their number.
    """

    from_previous: Channel
    to_previous: Channel
    from_next: Channel
    to_next: Channel
    tied: dict[int, TiedChannels]


@dataclass(frozen=True)
class Circumstances:
    """What a transport is opened for.

    `tied_stages` are the pairs (owner, copy) of stages that hold tied weights. `own_devices` tells
    that no two ranks compute on the same device; what has to be stopped or closed at the end of the
    run is put on `resources`.
    """

    job: MpiJob
    topology: PipelineTopology
    tied_stages: Sequence[tuple[int, int]]
    device: torch.device
    own_devices: bool
    receive_timeout_seconds: float
    progress_thread: bool
    resources: ExitStack

    def tied_to(self, stage: int) -> list[int]:
        """Return the stages that hold weights tied to those of `stage`."""
        pairs = (pair for pair in self.tied_stages if stage in pair)
        return [copy if stage == owner else owner for owner, copy in pairs]
