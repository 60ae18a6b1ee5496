"""Channels over torch.distributed: gloo between CPUs, NCCL between GPUs."""

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from hpc_lpm.engine.collectives import run_watched, wait_until
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
from hpc_lpm.engine.pipeline.transport.sent import (
    AwaitedMessages,
    PolledMessages,
    SentMessages,
)
from hpc_lpm.engine.pipeline.transport.torch_groups import make_pair_groups
from hpc_lpm.engine.topology import PipelineTopology, StagePlace
from hpc_lpm.engine.waits import WAITS


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
            if not wait_until(work.is_completed, self._timeout_seconds, peer=self._peer):
                raise BoundaryError.silence(self._peer, self._timeout_seconds)
            with _Connection(self._peer):
                wait()  # in this thread, whose stream is to wait
            return
        began = time.perf_counter()
        deadline = began + self._timeout_seconds
        WAITS.begin(began, self._peer)
        try:
            with _Connection(self._peer):
                run_watched(wait)
            WAITS.end()
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


def open_torch_channels(circumstances: Circumstances) -> RankChannels:
    """Open a rank's channels over torch.distributed (collective).

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
        _pairs_of_ranks(topology, circumstances.tied_devices),
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
            PolledMessages() if nccl else AwaitedMessages(circumstances.resources),
            works_tell=nccl,
            may_be_missing=may_be_missing,
            tag=tag,
            receive_timeout_seconds=limit,
        )

    handed_over: defaultdict[object, Box] = defaultdict(deque)

    def of_boundary(peer: int | None, stage_above: int, *, of_gradients: bool, tag: int) -> Channel:
        if peer is None:
            return LocalChannel(deque(), deque())  # never used
        if peer == job.rank:
            box = handed_over[stage_above, of_gradients, tag]
            return LocalChannel(box, box)
        pair = groups[topology.replica, stage_above]
        # Each pair of groups carries one boundary, whichever rank is the lower one.
        downwards = topology.placement.device(stage_above) < topology.placement.device(
            stage_above + 1
        )
        group = pair.forwards if downwards != of_gradients else pair.backwards
        return channel(peer, group, may_be_missing=of_gradients or not nccl, tag=tag)

    def to_neighbours(place: StagePlace, tag: int) -> NeighbourChannels:
        above, below = place.stage - 1, place.stage
        return NeighbourChannels(
            from_previous=of_boundary(place.previous_rank, above, of_gradients=False, tag=tag),
            to_previous=of_boundary(place.previous_rank, above, of_gradients=True, tag=tag),
            from_next=of_boundary(place.next_rank, below, of_gradients=True, tag=tag),
            to_next=of_boundary(place.next_rank, below, of_gradients=False, tag=tag),
        )

    def to_tied(device: int) -> TiedChannels:
        peer = topology.rank_of(device)
        pair = groups[topology.replica, frozenset((device, topology.device))]
        return TiedChannels(
            gradients=channel(peer, pair.backwards, may_be_missing=True),
            weights=channel(peer, pair.forwards, may_be_missing=False),
        )

    return RankChannels(
        [
            StageChannels(
                agreed=to_neighbours(place, 0),
                described=None if nccl else to_neighbours(place, 1),
            )
            for place in topology.places
        ],
        {device: to_tied(device) for device in circumstances.tied_to(topology.device)},
    )


def _pairs_of_ranks(
    topology: PipelineTopology, tied_devices: Sequence[tuple[int, int]]
) -> dict[object, tuple[int, int]]:
    """Return the pairs of ranks that exchange messages, by replica and what is between them.

    That is the boundary behind a stage, or a tie of two devices. The pairs are alike on all ranks.
    """
    device = topology.placement.device
    between: dict[object, tuple[int, int]] = {
        stage: (device(stage), device(stage + 1)) for stage in range(topology.stages - 1)
    }
    between |= {frozenset(pair): pair for pair in tied_devices}
    return {
        (replica, what): (
            min(pair) * topology.replicas + replica,
            max(pair) * topology.replicas + replica,
        )
        for what, pair in between.items()
        if pair[0] != pair[1]
        for replica in range(topology.replicas)
    }
