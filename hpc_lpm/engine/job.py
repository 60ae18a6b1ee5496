"""The ranks of a run, and the few operations among them needed outside the steady state."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from hpc_lpm.engine.collectives import receive_object, wait_until
from hpc_lpm.engine.waits import WAITS
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.mpi_start import start_mpi
from hpc_lpm.native_waits import DEFAULT_LIMIT_SECONDS, bounded_by_thread
from hpc_lpm.ranks import agreed_claim
from hpc_lpm.same_program import check_same, describe_program

Value = TypeVar("Value")

_FIRST_TAG = 10_000
"""The tags below are left to the transport over MPI, which sends over the same communicator."""


class Job(Protocol):
    """The ranks that train together; none waits for the others longer than `limit_seconds`.

    `communicator` is MPI's, of these ranks alone; None where they do without MPI. `store` is the
    store of torch.distributed over which they met; None where they met through MPI.
    """

    rank: int
    size: int
    limit_seconds: float
    communicator: Any
    store: Any

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""

    def once(self, make: Callable[[], Value]) -> Value:
        """Return what `make` makes, once for all ranks of a process; every rank calls this alike.

        It must be the same on every rank, and none of them may change it.
        """

    def own_tag(self) -> int:
        """Return a tag for messages that nothing else uses; every rank calls this alike."""

    def send(self, value: Any, rank: int, tag: int) -> None:
        """Send a value, which is pickled, to another rank; never wait for that rank."""

    def arrived(self, rank: int, tag: int) -> bool:
        """Tell if a value from this rank can be received, without waiting."""

    def receive(self, rank: int, tag: int) -> Any:
        """Return the next value that this rank sends.

        Raises:
            TimeoutError: if it does not come within `limit_seconds`.
        """


class SingleProcess:
    """The only rank of a run without MPI."""

    rank = 0
    size = 1
    communicator = None
    store = None

    def __init__(self, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> None:
        self.limit_seconds = limit_seconds

    def barrier(self) -> None:
        """Return at once, since there is no other rank to wait for."""

    def all_gather(self, value: Any) -> list[Any]:
        """Return a list that holds the value alone."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return the value unchanged."""
        return value

    def once(self, make: Callable[[], Value]) -> Value:
        """Return what `make` makes."""
        return make()

    def own_tag(self) -> int:
        """Return a tag, which nobody will use."""
        return _FIRST_TAG

    def send(self, value: Any, rank: int, tag: int) -> None:
        """Refuse: there is no other rank."""
        raise _no_other(rank)

    def arrived(self, rank: int, tag: int) -> bool:
        """Refuse: there is no other rank."""
        raise _no_other(rank)

    def receive(self, rank: int, tag: int) -> Any:
        """Refuse: there is no other rank."""
        raise _no_other(rank)


class MpiJob:
    """The ranks that mpirun or srun started, which find each other through MPI (collective).

    Every collective operation, this one included, raises TrainingError if a rank does not join it
    within `limit_seconds`. Messages are kept apart from those of the user's own script.
    """

    store = None

    def __init__(self, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> None:
        from mpi4py import MPI

        self.limit_seconds = limit_seconds
        self.communicator = MPI.COMM_WORLD
        self.rank: int = self.communicator.Get_rank()
        self.size: int = self.communicator.Get_size()
        self.barrier()
        with self._bounded("to make a communicator"):
            self.communicator = MPI.COMM_WORLD.Dup()
        self._next_tag = _FIRST_TAG
        self._leaving: list[Any] = []

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        request = self.communicator.Ibarrier()
        if not wait_until(lambda: bool(request.Test()), self.limit_seconds):
            raise not_all_came(self)

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""
        self.barrier()
        with self._bounded("a gathering"):
            gathered: list[Any] = self.communicator.allgather(value)
        return gathered

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        self.barrier()
        with self._bounded("a broadcast"):
            return self.communicator.bcast(value)

    @contextmanager
    def _bounded(self, what: str) -> Iterator[None]:
        """Bound an operation of MPI: a rank may stop even after all have met at a barrier."""
        with (
            WAITS.in_library(),
            bounded_by_thread(self.limit_seconds, self.rank, what, WAITS.blame),
        ):
            yield

    def once(self, make: Callable[[], Value]) -> Value:
        """Return what `make` makes in this process, which is one rank."""
        return make()

    def own_tag(self) -> int:
        """Return a tag for messages that nothing else uses; every rank calls this alike."""
        self._next_tag += 1
        return self._next_tag

    def send(self, value: Any, rank: int, tag: int) -> None:
        """Send a value to another rank; never wait for that rank."""
        # A request holds the memory of its message until MPI says that it has left.
        self._leaving = [request for request in self._leaving if not request.Test()]
        self._leaving.append(self.communicator.isend(value, dest=rank, tag=tag))

    def arrived(self, rank: int, tag: int) -> bool:
        """Tell if a value from this rank can be received, without waiting."""
        return bool(self.communicator.Iprobe(source=rank, tag=tag))

    def receive(self, rank: int, tag: int) -> Any:
        """Return the next value that this rank sends; TimeoutError if none comes in time."""
        return receive_object(self.communicator, rank, tag, self.limit_seconds)


def start_job(*, parallel: bool, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> Job:
    """Join the job that this process was started in, and compare what its ranks run (collective).

    Ranks that mpirun or srun started, or that have initialised mpi4py, find each other through MPI.
    Those that torchrun started, or srun without MPI, or that have initialised torch.distributed,
    do so through a store of torch.distributed.

    Args:
        parallel: whether the run needs MPI even on one rank; if not, MPI is initialised only where
            several ranks were started.
        limit_seconds: how long a rank waits for the others in a collective operation.

    Raises:
        InputError: if two sources tell this process different ranks; on every rank, if one of
            them runs other code of this package, or other libraries.
        TrainingError: if a rank does not come in time.
    """
    job = _join(parallel=parallel, limit_seconds=limit_seconds)
    if job.size > 1:
        check_same(job.all_gather(describe_program()))
    return job


def _join(*, parallel: bool, limit_seconds: float) -> Job:
    claim = agreed_claim()
    if claim is None or (claim.size == 1 and (claim.by_mpi or not parallel)):
        return MpiJob(limit_seconds) if parallel else SingleProcess(limit_seconds)
    if not claim.by_mpi:
        from hpc_lpm.engine.torch_job import TorchJob

        return TorchJob(claim, limit_seconds)
    MPI = start_mpi(limit_seconds)  # noqa: N806  as mpi4py calls it
    found = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    if found != (claim.rank, claim.size):
        raise InputError(
            f"{claim}, but mpi4py's MPI that it is rank {found[0]} of {found[1]}: use the launcher "
            "that belongs to the MPI library of mpi4py, which `hpc-lpm doctor` names."
        )
    return MpiJob(limit_seconds)


def not_all_came(job: Job) -> TrainingError:
    """Return the error of a rank that has waited in vain for the others."""
    return TrainingError(
        f"rank {job.rank}: not all {job.size} ranks reached a barrier within "
        f"{job.limit_seconds:g} s: one hangs or is gone; raise --receive-timeout if it "
        "is only slow."
    )


def _no_other(rank: int) -> ValueError:
    return ValueError(f"a single process cannot exchange messages with rank {rank}")
