"""Waits that end: for a call, for a message, for all ranks, for a process."""

import math
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.engine.collectives import wait_until

if TYPE_CHECKING:
    from mpi4py import MPI


T = TypeVar("T")


def bound_process(seconds: float) -> None:
    """Have this process ended after so many seconds, whatever it hangs in.

    A later call replaces an earlier one. The operating system does it, since no code of ours may
    come to run in a process that hangs in MPI.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(seconds))


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, in a thread that is left behind if it hangs.

    Raises:
        TimeoutError: if it has not returned within `seconds`.
        OSError: the one that it raised.
    """
    outcome: list[T] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            outcome.append(work())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return outcome[0]


Buffer = NDArray[Any]

_given_up: list[tuple[object, Buffer]] = []
"""Messages that MPI may still read or write when nobody waits for them any more."""


class NoAnswerError(Exception):
    """The other rank did not take or send a message in time."""


class Partner:
    """Another rank; every message to or from it is waited for at most `limit_seconds`."""

    def __init__(
        self, communicator: "MPI.Intracomm", rank: int, tag: int, limit_seconds: float
    ) -> None:
        self.rank = rank
        self.limit_seconds = limit_seconds
        self._communicator = communicator
        self._tag = tag

    def send(self, message: Buffer) -> None:
        """Send a message; raises NoAnswerError."""
        request = self._communicator.Isend(message, dest=self.rank, tag=self._tag)
        self._finish(request, message)

    def receive(self, message: Buffer) -> None:
        """Receive a message of that size; raises NoAnswerError."""
        request = self._communicator.Irecv(message, source=self.rank, tag=self._tag)
        self._finish(request, message)

    def send_number(self, number: float) -> None:
        """Send one number; raises NoAnswerError."""
        self.send(np.array([number], dtype=np.float64))

    def receive_number(self) -> float:
        """Receive one number; raises NoAnswerError."""
        message = np.zeros(1, dtype=np.float64)
        self.receive(message)
        return float(message[0])

    def _finish(self, request: "MPI.Request", message: Buffer) -> None:
        if wait_until(lambda: bool(request.Test()), self.limit_seconds):
            return
        _given_up.append((request, message))
        raise NoAnswerError(f"rank {self.rank} did not answer within {self.limit_seconds:g} s")


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
