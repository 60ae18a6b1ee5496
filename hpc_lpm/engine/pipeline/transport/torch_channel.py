"""Channels over torch.distributed: gloo between CPUs, NCCL between GPUs."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from hpc_lpm.engine.collectives import run_watched, wait_until
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.boundary import MessagePart, TensorSpec
from hpc_lpm.engine.pipeline.transport.channel import (
    RECEIVES_AHEAD,
    Circumstances,
    NeighbourChannels,
    StageChannels,
    TiedChannels,
)
from hpc_lpm.engine.pipeline.transport.memory import (
    DeviceMemory,
    HostMemory,
    MessageMemory,
    StagedMemory,
    as_bytes,
)
from hpc_lpm.engine.pipeline.transport.sent import (
    AwaitedMessages,
    PolledMessages,
    SentMessages,
)
from hpc_lpm.engine.pipeline.transport.torch_groups import make_pair_groups
from hpc_lpm.engine.topology import PipelineTopology


@dataclass
class _Posted:
    tensors: tuple[Tensor, ...]
    works: list[Any]


class TorchChannel:
    """Carries messages over a process group that has messages in this direction only.

    torch delivers the messages of one group between two ranks in the order of sending.
    `works_tell` is True if torch's works say when they are done. If tensors `may_be_missing`, each
    message begins with flags that tell which are there; something is sent in place of the others.
    Messages under different tags, which NCCL does not have, do not meet.
    """

    def __init__(
        self,
        group: Any,
        peer: int,
        memory: MessageMemory,
        sent: SentMessages,
        *,
        works_tell: bool,
        may_be_missing: bool,
        tag: int = 0,
        receive_timeout_seconds: float,
    ) -> None:
        self._group = group
        self._peer = peer
        self._memory = memory
        self._sent = sent
        self._works_tell = works_tell
        self._may_be_missing = may_be_missing
        self._tag = tag
        self._timeout_seconds = receive_timeout_seconds
        self._posted: deque[_Posted] = deque()
        self._expected: deque[tuple[TensorSpec, ...]] = deque()
        self.bytes_sent = 0

    def send(self, parts: Sequence[MessagePart]) -> None:
        """Start sending a message; its memory is held until it has left.

        Raises:
            BoundaryError: if the neighbour is gone.
        """
        tensors = [
            part if isinstance(part, Tensor) else part.empty(self._memory.device) for part in parts
        ]
        # Without the flags, which cost nothing over MPI.
        self.bytes_sent += sum(tensor.nbytes for tensor in tensors)
        if self._may_be_missing:
            there = [isinstance(part, Tensor) for part in parts]
            tensors.insert(0, torch.tensor(there, device=self._memory.device))
        for tensor in tensors:
            leaving = self._memory.leaving(tensor)
            with _Connection(self._peer):
                work = torch.distributed.isend(
                    as_bytes(leaving), self._peer, group=self._group, tag=self._tag
                )
            self._sent.hold(leaving, work)
        self._sent.release()

    def release_sent(self) -> None:
        """Release the memory of the messages that have left."""
        self._sent.release()

    def expect(self, messages: Iterable[tuple[TensorSpec, ...]]) -> None:
        """Announce the messages to come; the first few receives are posted at once."""
        self._expected.extend(messages)
        self._post_ahead()

    def receive(self) -> tuple[Tensor | None, ...]:
        """Wait for the next message and return it.

        Raises:
            BoundaryError: if it does not come in time or the neighbour is gone.
        """
        message = self._posted.popleft()
        for work in message.works:
            self._wait(work)
        self._post_ahead()
        arrived = [self._memory.arrived(tensor) for tensor in message.tensors]
        if not self._may_be_missing:
            return tuple(arrived)
        there, *tensors = arrived
        return tuple(
            tensor if is_there else None
            for tensor, is_there in zip(tensors, there.tolist(), strict=True)
        )

    def flush(self) -> None:
        """Wait until every message has left.

        Raises:
            BoundaryError: if the neighbour does not take one in time or is gone.
        """
        with _Connection(self._peer):
            if not self._sent.flush(self._timeout_seconds):
                raise BoundaryError.silence(self._peer, self._timeout_seconds)

    def _wait(self, work: Any) -> None:
        wait = partial(work.wait, timedelta(seconds=self._timeout_seconds))
        if self._works_tell:
            # NCCL's own wait returns at once and lets the device wait, which has no limit.
            if not wait_until(work.is_completed, self._timeout_seconds):
                raise BoundaryError.silence(self._peer, self._timeout_seconds)
            with _Connection(self._peer):
                wait()  # in this thread, whose stream is to wait
            return
        deadline = time.perf_counter() + self._timeout_seconds
        try:
            with _Connection(self._peer):
                run_watched(wait)
        except BoundaryError as error:
            if time.perf_counter() < deadline:
                raise
            raise BoundaryError.silence(self._peer, self._timeout_seconds) from error

    def _post_ahead(self) -> None:
        while self._expected and len(self._posted) < RECEIVES_AHEAD:
            specs = self._expected.popleft()
            if self._may_be_missing:
                specs = (TensorSpec((len(specs),), torch.bool), *specs)
            tensors = tuple(self._memory.buffer(spec) for spec in specs)
            with _Connection(self._peer):
                works = [
                    torch.distributed.irecv(
                        as_bytes(tensor), self._peer, group=self._group, tag=self._tag
                    )
                    for tensor in tensors
                ]
            self._posted.append(_Posted(tensors, works))


class _Connection:
    """Names the neighbour when torch reports that the connection to it is broken."""

    def __init__(self, peer: int) -> None:
        self._peer = peer

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, RuntimeError):
            raise BoundaryError(
                f"the connection to rank {self._peer} is broken: it was killed or has failed; see "
                "what it said, and whether its node ran out of memory"
            ) from error


def open_torch_channels(circumstances: Circumstances) -> StageChannels:
    """Open a stage's channels over torch.distributed (collective).

    NCCL needs a GPU for each rank; ranks that share one send through host memory over gloo.

    Raises:
        TrainingError: if a neighbour does not answer in time.
    """
    job, device, limit = (
        circumstances.job,
        circumstances.device,
        circumstances.receive_timeout_seconds,
    )
    nccl = device.type == "cuda" and circumstances.own_devices
    memory: MessageMemory = HostMemory()
    if device.type == "cuda":
        memory = DeviceMemory(device, knows_streams=True) if nccl else StagedMemory(device)
    topology = circumstances.topology
    groups = make_pair_groups(
        job,
        _pairs_of_ranks(topology, circumstances.tied_stages),
        device if nccl else torch.device("cpu"),
        "nccl" if nccl else "gloo",
        limit,
        circumstances.resources,
    )

    def channel(peer: int, group: Any, *, may_be_missing: bool, tag: int = 0) -> TorchChannel:
        return TorchChannel(
            group,
            peer,
            memory,
            PolledMessages() if nccl else AwaitedMessages(),
            works_tell=nccl,
            may_be_missing=may_be_missing,
            tag=tag,
            receive_timeout_seconds=limit,
        )

    previous, following = topology.previous_rank, topology.next_rank
    # Neighbours come first, so a pair that is also tied has its second pair of groups last.
    before = next(iter(groups.get((previous, job.rank), ())), None)
    after = next(iter(groups.get((job.rank, following), ())), None)
    tied = {}
    for stage in circumstances.tied_to(topology.stage):
        peer = topology.rank_of(stage)
        pair = groups[min(peer, job.rank), max(peer, job.rank)][-1]
        tied[stage] = TiedChannels(
            gradients=channel(peer, pair.backwards, may_be_missing=True),
            weights=channel(peer, pair.forwards, may_be_missing=False),
        )

    def to_neighbours(tag: int) -> NeighbourChannels:
        return NeighbourChannels(
            from_previous=channel(
                previous, before and before.forwards, may_be_missing=not nccl, tag=tag
            ),
            to_previous=channel(
                previous, before and before.backwards, may_be_missing=True, tag=tag
            ),
            from_next=channel(following, after and after.backwards, may_be_missing=True, tag=tag),
            to_next=channel(following, after and after.forwards, may_be_missing=not nccl, tag=tag),
        )

    return StageChannels(
        agreed=to_neighbours(0), described=None if nccl else to_neighbours(1), tied=tied
    )


def _pairs_of_ranks(
    topology: PipelineTopology, tied_stages: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the pairs of ranks that exchange messages, neighbours first, alike on all ranks."""
    stages = [*pairwise(range(topology.stages)), *tied_stages]
    return [
        (first * topology.replicas + replica, second * topology.replicas + replica)
        for first, second in stages
        for replica in range(topology.replicas)
    ]
