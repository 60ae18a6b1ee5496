"""The ranks of a run, and the few collective operations needed outside the steady state."""

from typing import Any, Protocol

from hpc_lpm.engine.collectives import wait_until
from hpc_lpm.errors import TrainingError
from hpc_lpm.ranks import ranks_from_environment

DEFAULT_LIMIT_SECONDS = 600.0


class Job(Protocol):
    """The ranks that train together; none waits for the others longer than `limit_seconds`."""

    rank: int
    size: int
    limit_seconds: float

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""


class SingleProcess:
    """The only rank of a run without MPI."""

    rank = 0
    size = 1
    limit_seconds = DEFAULT_LIMIT_SECONDS

    def barrier(self) -> None:
        """Return at once, since there is no other rank to wait for."""

    def all_gather(self, value: Any) -> list[Any]:
        """Return a list that holds the value alone."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return the value unchanged."""
        return value


class MpiJob:
    """The ranks that mpirun or srun started.

    Every collective operation raises TrainingError if a rank does not join it within
    `limit_seconds`.
    """

    def __init__(self, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> None:
        from mpi4py import MPI

        self.limit_seconds = limit_seconds
        self.communicator = MPI.COMM_WORLD
        self.rank: int = self.communicator.Get_rank()
        self.size: int = self.communicator.Get_size()

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        request = self.communicator.Ibarrier()
        if not wait_until(lambda: bool(request.Test()), self.limit_seconds):
            raise TrainingError(
                f"rank {self.rank}: not all {self.size} ranks reached a barrier within "
                f"{self.limit_seconds:g} s: one hangs or is gone; raise --receive-timeout if it "
                "is only slow."
            )

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""
        self.barrier()  # MPI's allgather has no time limit, and needs none once all ranks are here
        gathered: list[Any] = self.communicator.allgather(value)
        return gathered

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        self.barrier()
        return self.communicator.bcast(value)


def start_job(*, parallel: bool, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> Job:
    """Join the job that this process was started in.

    Args:
        parallel: whether the run needs MPI even on one rank; if not, MPI is initialised only where
            several ranks were started.
        limit_seconds: how long a rank waits for the others in a collective operation.
    """
    return MpiJob(limit_seconds) if parallel or ranks_from_environment() > 1 else SingleProcess()
