"""Ranks that meet, and find out who does not come: MPI's own collectives would wait for ever."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hpc_lpm.engine.collectives import wait_until

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")

_FIRST_TAG, _TAGS = 20_000, 10_000  # every MPI has tags up to 32767
_GRACE_SECONDS = 5.0


class RanksMissingError(Exception):
    """Some ranks did not come to a meeting in time."""

    def __init__(self, ranks: Sequence[int], purpose: str, limit_seconds: float) -> None:
        self.ranks = tuple(ranks)
        self.purpose = purpose
        self.limit_seconds = limit_seconds
        numbers = ", ".join(map(str, ranks))
        super().__init__(f"rank {numbers} was not there for {purpose} within {limit_seconds:g} s")


class Meeting:
    """All ranks of a communicator, rank 0 in the chair; each must make the same calls in turn."""

    def __init__(self, communicator: "MPI.Intracomm", limit_seconds: float) -> None:
        self.communicator = communicator
        self.limit_seconds = limit_seconds
        self._calls = 0

    def gather(self, value: T, purpose: str, *, extra_seconds: float = 0.0) -> list[T]:
        """Return every rank's value, in rank order, on rank 0 and nothing on the others.

        Args:
            value: this rank's own.
            purpose: what the ranks meet for, as it is called in errors.
            extra_seconds: how much longer than usual ranks may take to come.

        Raises:
            RanksMissingError: on every rank that came, if one did not within the limit.
        """
        limit_seconds = self.limit_seconds + extra_seconds
        tag = self._next_tag()
        if self.communicator.rank:
            self.communicator.isend(value, dest=0, tag=tag)
            missing = self._from_chair(tag, purpose, limit_seconds)
            if missing:
                raise RanksMissingError(missing, purpose, limit_seconds)
            return []
        values: dict[int, T] = {0: value}
        wait_until(lambda: self._all_came(values, tag), limit_seconds)
        missing = [rank for rank in range(self.communicator.size) if rank not in values]
        self._to_all(missing, [rank for rank in values if rank], tag, purpose, limit_seconds)
        if missing:
            raise RanksMissingError(missing, purpose, limit_seconds)
        return [values[rank] for rank in range(self.communicator.size)]

    def share(self, value: T, purpose: str, *, extra_seconds: float = 0.0) -> T:
        """Return rank 0's value on every rank.

        Raises:
            RanksMissingError: where the value did not arrive within the limit.
        """
        limit_seconds = self.limit_seconds + extra_seconds
        tag = self._next_tag()
        if self.communicator.rank:
            received: T = self._from_chair(tag, purpose, limit_seconds)
            return received
        self._to_all(value, range(1, self.communicator.size), tag, purpose, limit_seconds)
        return value

    def _next_tag(self) -> int:
        self._calls += 1
        return _FIRST_TAG + self._calls % _TAGS

    def _all_came(self, values: dict[int, T], tag: int) -> bool:
        from mpi4py import MPI

        status = MPI.Status()
        while message := self.communicator.improbe(MPI.ANY_SOURCE, tag, status):
            values[status.source] = message.recv()
        return len(values) == self.communicator.size

    def _from_chair(self, tag: int, purpose: str, limit_seconds: float) -> Any:
        # Rank 0 waits for the others before it speaks.
        limit_seconds += _GRACE_SECONDS
        if not wait_until(lambda: bool(self.communicator.iprobe(0, tag)), limit_seconds):
            raise RanksMissingError([0], purpose, limit_seconds)
        return self.communicator.recv(source=0, tag=tag)

    def _to_all(
        self, value: object, ranks: Sequence[int], tag: int, purpose: str, limit_seconds: float
    ) -> None:
        requests = {rank: self.communicator.isend(value, dest=rank, tag=tag) for rank in ranks}
        waiting = dict(requests)

        def all_sent() -> bool:
            for rank, request in list(waiting.items()):
                if request.Test():
                    del waiting[rank]
            return not waiting

        if not wait_until(all_sent, limit_seconds):
            raise RanksMissingError(list(waiting), purpose, limit_seconds)
