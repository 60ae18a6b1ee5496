"""Sums over the replicas of a stage, which are other processes or played by this one."""

from typing import Protocol

import torch
import torch.distributed
from torch import Tensor
from torch.distributed import ProcessGroup

from hpc_lpm.engine.one_process.job import Board, PlayedJob
from hpc_lpm.engine.topology import PipelineTopology


class StartedSum(Protocol):
    """A sum that has been started."""

    def is_completed(self) -> bool:
        """Tell, without waiting for other processes, if the sum is there."""

    def wait(self) -> object:
        """Wait until the sum is there; RuntimeError if a replica is gone."""


class ReplicaSum(Protocol):
    """Sums tensors over the replicas of one stage."""

    def start(self, tensor: Tensor) -> StartedSum:
        """Start to sum a tensor in place over the replicas, each of which calls this (collective).

        Until the sum is there nothing may read or change the tensor.
        """


class SumOverGroup:
    """Sums over a process group of torch."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def start(self, tensor: Tensor) -> StartedSum:
        """Start an all-reduce."""
        work: StartedSum | None
        work = torch.distributed.all_reduce(tensor, group=self._group, async_op=True)
        assert work is not None
        return work


class PlayedSum:
    """Sums over replicas that this process plays, in the order of the replicas.

    Of two replicas the sum is the same in any order; of more, a library may add in another one.
    """

    def __init__(self, job: PlayedJob, topology: PipelineTopology) -> None:
        self._board = job.board
        self._topology = topology
        self._sums = 0

    def start(self, tensor: Tensor) -> StartedSum:
        """Leave the tensor for the last replica that comes, which sums up."""
        self._sums += 1
        key = "sum", self._topology.device, self._sums
        parts: dict[int, Tensor] = self._board.gathered[key]
        parts[self._topology.replica] = tensor
        replicas = self._topology.replicas
        if len(parts) == replicas:
            total = parts[0].clone()
            for replica in range(1, replicas):
                total += parts[replica]
            for part in parts.values():
                part.copy_(total)
            del self._board.gathered[key]
        return _PlayedPart(self._board, parts, replicas)


class _PlayedPart:
    """One replica's part of a sum."""

    def __init__(self, board: Board, parts: dict[int, Tensor], replicas: int) -> None:
        self._board, self._parts, self._replicas = board, parts, replicas

    def is_completed(self) -> bool:
        """Let other ranks run until the sum is there."""
        self.wait()
        return True

    def wait(self) -> None:
        """Let other ranks run until the sum is there."""
        self._board.turns.wait_for(lambda: len(self._parts) == self._replicas)
