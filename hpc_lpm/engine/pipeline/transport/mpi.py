"""Channels over MPI, which never block a sender."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from mpi4py import MPI
from torch import Tensor

from hpc_lpm.engine.collectives import wait_until
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.boundary import MessagePart, TensorSpec
from hpc_lpm.engine.pipeline.transport.channel import (
    RECEIVES_AHEAD,
    Channel,
    Circumstances,
    NeighbourChannels,
    RankChannels,
    StageChannels,
    TiedChannels,
)
from hpc_lpm.engine.pipeline.transport.local import Box, LocalChannel
from hpc_lpm.engine.pipeline.transport.memory import (
    DeviceMemory,
    HostMemory,
    MessageMemory,
    StagedMemory,
    as_bytes,
)
from hpc_lpm.engine.pipeline.transport.mpi_library import mpi_reads_device_memory
from hpc_lpm.engine.pipeline.transport.progress_thread import NoProgress, Progress, ProgressThread
from hpc_lpm.engine.topology import StagePlace

_ACTIVATION_TAG = 1
_GRADIENT_TAG = 2
_TIED_GRADIENT_TAG = 3
_TIED_WEIGHTS_TAG = 4
_DESCRIBED_ACTIVATION_TAG = 5
_DESCRIBED_GRADIENT_TAG = 6
_TAGS_OF_BOUNDARY = 7
_NOTHING = torch.empty(0)
_NO_EMPTY_TENSOR = torch.zeros(1, dtype=torch.uint8)
"""What comes in place of a missing tensor that would have no bytes if it were there."""


@dataclass
class _Posted:
    """A message on its way: its tensors, and the memory that each request sends or fills."""

    tensors: tuple[Tensor, ...]
    requests: list[Any]
    memory: tuple[Tensor, ...]


class MpiChannel:
    """Carries messages between this rank and `peer` under the tag `tag`."""

    def __init__(
        self,
        communicator: Any,
        peer: int,
        tag: int,
        *,
        receive_timeout_seconds: float,
        memory: MessageMemory | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._timeout_seconds = receive_timeout_seconds
        self._communicator = communicator
        self._peer = peer
        self._tag = tag
        self._memory = memory or HostMemory()
        self._progress = progress or NoProgress()
        self._leaving: deque[_Posted] = deque()
        self._posted: deque[_Posted] = deque()
        self._expected: deque[tuple[TensorSpec, ...]] = deque()
        self.bytes_sent = 0

    def send(self, parts: Sequence[MessagePart]) -> None:
        """Start sending a message; its memory is held until it has left.

        In place of a tensor that is missing nothing is sent, which is a message too; a byte in
        place of one that is empty anyway.
        """
        held = tuple(
            self._memory.leaving(part) if isinstance(part, Tensor) else _in_place_of(part)
            for part in parts
        )
        requests = [
            self._communicator.Isend(_buffer(tensor), dest=self._peer, tag=self._tag)
            for tensor in held
        ]
        self.bytes_sent += sum(part.nbytes for part in parts if isinstance(part, Tensor))
        self._leaving.append(_Posted(held, requests, held))
        self._progress.posted(len(requests))
        self.release_sent()

    def release_sent(self) -> None:
        """Release the memory of the messages that have left; this also drives MPI's progress."""
        while self._leaving and _all_done(self._leaving[0].requests):
            self._progress.completed(len(self._leaving.popleft().requests))

    def expect(self, messages: Iterable[tuple[TensorSpec, ...]]) -> None:
        """Announce the messages to come; the first few receives are posted at once."""
        self._expected.extend(messages)
        self._post_ahead()

    def receive(self) -> tuple[Tensor | None, ...]:
        """Wait for the next message and return it.

        Raises:
            BoundaryError: if it is not as long as expected, or does not come in time.
        """
        message = self._posted.popleft()
        present = [
            self._wait_for(request, tensor.nbytes)
            for tensor, request in zip(message.tensors, message.requests, strict=True)
        ]
        self._progress.completed(len(message.requests))
        self._post_ahead()
        return tuple(
            self._memory.arrived(tensor) if there else None
            for tensor, there in zip(message.tensors, present, strict=True)
        )

    def flush(self) -> None:
        """Wait until every message has left.

        Raises:
            BoundaryError: if the neighbour does not take one in time.
        """
        while self._leaving:
            message = self._leaving.popleft()
            for request in message.requests:
                self._wait(request, MPI.Status())
            self._progress.completed(len(message.requests))

    def _wait_for(self, request: Any, expected_bytes: int) -> bool:
        """Wait for a tensor; return False if it is missing."""
        status = MPI.Status()
        try:
            self._wait(request, status)
        except MPI.Exception as error:
            if error.Get_error_class() != MPI.ERR_TRUNCATE:
                raise
            found = "more"
        else:
            count = status.Get_count(MPI.BYTE)
            missing = 0 if expected_bytes else _NO_EMPTY_TENSOR.nbytes
            if count in {missing, expected_bytes}:
                return count == expected_bytes
            found = str(count)
        raise BoundaryError(
            f"a tensor from rank {self._peer} has {found} bytes where {expected_bytes} were "
            "agreed before training: give --boundary-shapes sent, so that every message says what "
            "it consists of"
        )

    def _wait(self, request: Any, status: Any) -> None:
        done = wait_until(
            lambda: bool(request.Test(status)), self._timeout_seconds, peer=self._peer
        )
        if not done:
            raise BoundaryError.silence(self._peer, self._timeout_seconds)

    def _post_ahead(self) -> None:
        while self._expected and len(self._posted) < RECEIVES_AHEAD:
            tensors = tuple(self._memory.buffer(spec) for spec in self._expected.popleft())
            memory = tuple(
                tensor if tensor.nbytes else torch.empty_like(_NO_EMPTY_TENSOR)
                for tensor in tensors
            )
            requests = [
                self._communicator.Irecv(_buffer(each), source=self._peer, tag=self._tag)
                for each in memory
            ]
            self._posted.append(_Posted(tensors, requests, memory))
            self._progress.posted(len(requests))


def open_mpi_channels(circumstances: Circumstances) -> RankChannels:
    """Return channels over MPI; device memory is handed to MPI itself if that is CUDA-aware."""
    job, device = circumstances.job, circumstances.device
    memory: MessageMemory = HostMemory()
    if device.type == "cuda":
        memory = (
            DeviceMemory(device, knows_streams=False)
            if mpi_reads_device_memory()
            else StagedMemory(device)
        )
    progress: Progress = NoProgress()
    if circumstances.progress_thread:
        progress = circumstances.resources.enter_context(ProgressThread(job.communicator))

    def channel(peer: int, tag: int) -> MpiChannel:
        return MpiChannel(
            job.communicator,
            peer,
            tag,
            receive_timeout_seconds=circumstances.receive_timeout_seconds,
            memory=memory,
            progress=progress,
        )

    topology = circumstances.topology
    handed_over: defaultdict[int, Box] = defaultdict(deque)

    def of_boundary(peer: int | None, stage_above: int, kind: int) -> Channel:
        if peer is None:
            return LocalChannel(deque(), deque())  # never used
        # Two ranks may have several boundaries between them.
        tag = kind + topology.placement.chunk(stage_above) * _TAGS_OF_BOUNDARY
        if peer == job.rank:
            return LocalChannel(handed_over[tag], handed_over[tag])
        return channel(peer, tag)

    def to_neighbours(place: StagePlace, activation: int, gradient: int) -> NeighbourChannels:
        above, below = place.stage - 1, place.stage
        return NeighbourChannels(
            from_previous=of_boundary(place.previous_rank, above, activation),
            to_previous=of_boundary(place.previous_rank, above, gradient),
            from_next=of_boundary(place.next_rank, below, gradient),
            to_next=of_boundary(place.next_rank, below, activation),
        )

    return RankChannels(
        [
            StageChannels(
                to_neighbours(place, _ACTIVATION_TAG, _GRADIENT_TAG),
                to_neighbours(place, _DESCRIBED_ACTIVATION_TAG, _DESCRIBED_GRADIENT_TAG),
            )
            for place in topology.places
        ],
        {
            device: TiedChannels(
                gradients=channel(topology.rank_of(device), _TIED_GRADIENT_TAG),
                weights=channel(topology.rank_of(device), _TIED_WEIGHTS_TAG),
            )
            for device in circumstances.tied_to(topology.device)
        },
    )


def _in_place_of(missing: TensorSpec) -> Tensor:
    return _NOTHING if prod(missing.shape) else _NO_EMPTY_TENSOR


def _buffer(tensor: Tensor) -> Any:
    """Return what mpi4py accepts; device memory describes itself by __cuda_array_interface__."""
    memory = as_bytes(tensor)
    return memory if memory.is_cuda else memory.numpy()


def _all_done(requests: list[Any]) -> bool:
    return all(request.Test() for request in requests)
