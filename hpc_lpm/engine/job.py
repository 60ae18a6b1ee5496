"""The ranks of a run and the few collective operations needed outside the steady state."""

from typing import Any, Protocol

from hpc_lpm.ranks import ranks_from_environment


class Job(Protocol):
    """The ranks that train together."""

    rank: int
    size: int

    def barrier(self) -> None:
        """Wait until every rank is here."""

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""


class SingleProcess:
    """A run without MPI: one rank."""

    rank = 0
    size = 1

    def barrier(self) -> None:
        """Nobody to wait for."""

    def all_gather(self, value: Any) -> list[Any]:
        """Return the only value."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return the value itself."""
        return value


class MpiJob:
    """The ranks that mpirun or srun started."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self.communicator = MPI.COMM_WORLD
        self.rank: int = self.communicator.Get_rank()
        self.size: int = self.communicator.Get_size()

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.communicator.Barrier()

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""
        gathered: list[Any] = self.communicator.allgather(value)
        return gathered

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        return self.communicator.bcast(value)


def start_job(*, parallel: bool) -> Job:
    """Join the job that this process was started in.

    Args:
        parallel: the run needs MPI even on one rank; without it MPI is touched only if there are
            several ranks.
    """
    return MpiJob() if parallel or ranks_from_environment() > 1 else SingleProcess()
