"""Channels between stages that one process plays: tensors are handed over, copied."""

from collections import deque
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.pipeline.boundary import MessagePart, TensorSpec
from hpc_lpm.engine.pipeline.memory_order import as_dense
from hpc_lpm.engine.pipeline.transport.channel import (
    Circumstances,
    NeighbourChannels,
    StageChannels,
    TiedChannels,
)


class PlayedChannel:
    """Hands messages of one kind to another rank, and takes those of that rank; see `Channel`.

    `bytes_sent` are those that a channel between processes would have sent.
    """

    def __init__(self, job: PlayedJob, peer: int, kind: str) -> None:
        boxes = job.board.boxes
        self._turns = job.board.turns
        self._leaving: deque[tuple[Tensor | None, ...]] = boxes[job.rank, peer, kind]
        self._coming: deque[tuple[Tensor | None, ...]] = boxes[peer, job.rank, kind]
        self._expected: deque[tuple[TensorSpec, ...]] = deque()
        self.bytes_sent = 0

    def send(self, parts: Sequence[MessagePart]) -> None:
        """Leave copies of the tensors: layers may change in place what they give and are given."""
        left = tuple(
            as_dense(part.detach()).clone() if isinstance(part, Tensor) else None for part in parts
        )
        self.bytes_sent += sum(tensor.nbytes for tensor in left if tensor is not None)
        self._leaving.append(left)

    def expect(self, messages: Iterable[tuple[TensorSpec, ...]]) -> None:
        """Take note of the memory layouts of the messages to come."""
        self._expected.extend(messages)

    def receive(self) -> tuple[Tensor | None, ...]:
        """Let other ranks run until the next message is there, and return it."""
        specs = self._expected.popleft()
        self._turns.wait_for(lambda: bool(self._coming))
        return tuple(
            None if tensor is None else _laid_out(tensor, spec)
            for tensor, spec in zip(self._coming.popleft(), specs, strict=True)
        )

    def release_sent(self) -> None:
        """Do nothing: what was handed over belongs to the receiver."""

    def flush(self) -> None:
        """Do nothing: every message has left."""


def _laid_out(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """Return a tensor with the strides of memory that was made for it, as a transport would."""
    # Strides along a dimension of size 1 mean nothing, but kernels may be chosen by them.
    strides = spec.strides or torch.empty(spec.shape, device="meta").stride()
    return tensor if tensor.stride() == strides else tensor.as_strided(spec.shape, strides)


def open_played_channels(circumstances: Circumstances) -> StageChannels:
    """Return the channels of one stage within this process."""
    job, topology = circumstances.job, circumstances.topology
    assert isinstance(job, PlayedJob)
    previous, following = topology.previous_rank, topology.next_rank

    def to_neighbours(kind: str) -> NeighbourChannels:
        return NeighbourChannels(
            from_previous=PlayedChannel(job, previous, f"{kind} activation"),
            to_previous=PlayedChannel(job, previous, f"{kind} gradient"),
            from_next=PlayedChannel(job, following, f"{kind} gradient"),
            to_next=PlayedChannel(job, following, f"{kind} activation"),
        )

    return StageChannels(
        agreed=to_neighbours("agreed"),
        described=to_neighbours("described"),
        tied={
            stage: TiedChannels(
                gradients=PlayedChannel(job, topology.rank_of(stage), "tied gradient"),
                weights=PlayedChannel(job, topology.rank_of(stage), "tied weights"),
            )
            for stage in circumstances.tied_to(topology.stage)
        },
    )
