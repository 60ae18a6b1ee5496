"""Makes a process group for each pair of ranks and each direction, and for what is between them.

NCCL performs the operations of one communicator one after the other, and each is a rendezvous: in a
common group, a send that waits for its receiver would hold up the receive that this one waits for.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed

from hpc_lpm.engine.collectives import has_passed, how_it_ended
from hpc_lpm.engine.job import Job
from hpc_lpm.errors import TrainingError

Name = TypeVar("Name")


@dataclass(frozen=True)
class PairGroups:
    """The groups of two ranks: `forwards` from the lower to the higher rank, `backwards` back."""

    forwards: Any
    backwards: Any


def make_pair_groups(
    job: Job,
    pairs: Mapping[Name, tuple[int, int]],
    device: torch.device,
    backend: str,
    limit_seconds: float,
    resources: ExitStack,
) -> dict[Name, PairGroups]:
    """Make the groups of all pairs and return this rank's (collective).

    All ranks make all groups in the same order, as torch demands. The two ranks of a group exchange
    a message at once, again in the same order everywhere: NCCL connects at the first message, and
    ranks that connect in different orders would wait for each other.

    Args:
        job: the ranks.
        pairs: by name two ranks, the lower one first.
        device: of the tensors that are exchanged.
        backend: of torch.
        limit_seconds: how long a rank waits for another one.
        resources: close the groups.

    Raises:
        TrainingError: if a neighbour does not answer in time.
    """
    start = time.perf_counter()
    try:
        return _make(job, pairs, device, backend, limit_seconds, resources)
    except RuntimeError as error:
        seconds = time.perf_counter() - start
        slow = "raise --receive-timeout if it is only slow, or "
        raise TrainingError(
            f"rank {job.rank}: the stages cannot be connected over {backend} "
            f"{how_it_ended(error, seconds, limit_seconds)}: a rank hangs or is gone; "
            f"{slow if has_passed(seconds, limit_seconds) else ''}choose --transport mpi."
        ) from error


def _make(
    job: Job,
    pairs: Mapping[Name, tuple[int, int]],
    device: torch.device,
    backend: str,
    limit_seconds: float,
    resources: ExitStack,
) -> dict[Name, PairGroups]:
    own: dict[Name, PairGroups] = {}
    for name, (lower, higher) in pairs.items():
        groups = PairGroups(
            *(
                torch.distributed.new_group(
                    [lower, higher], backend=backend, timeout=timedelta(seconds=limit_seconds)
                )
                for _ in range(2)
            )
        )
        if job.rank not in (lower, higher):
            continue
        own[name] = groups
        _greet(groups.forwards, lower, higher, job.rank, device, limit_seconds)
        _greet(groups.backwards, higher, lower, job.rank, device, limit_seconds)
        for group in (groups.forwards, groups.backwards):
            resources.push(_Closing(group))
    return own


def _greet(
    group: Any, sender: int, receiver: int, rank: int, device: torch.device, limit_seconds: float
) -> None:
    greeting = torch.zeros(1, dtype=torch.uint8, device=device)
    if rank == sender:
        work = torch.distributed.isend(greeting, receiver, group=group)
    else:
        work = torch.distributed.irecv(greeting, sender, group=group)
    assert work is not None
    work.wait(timedelta(seconds=limit_seconds))


class _Closing:
    """Closes a group at the end of a run that went well.

    A rank that fails keeps its connections until it has reported its error: its neighbour would
    otherwise report the closed connection first.
    """

    def __init__(self, group: Any) -> None:
        self._group = group

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            torch.distributed.destroy_process_group(self._group)
