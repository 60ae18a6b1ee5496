"""Waiting with a time limit: for a call, for a message, for all ranks, for this process to end.

The doctor examines machines on which any of these may hang: a mount whose server is gone, a lock
service, a network that drops packets, or the start and the end of MPI itself.
"""

import math
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.engine.collectives import receive_object, wait_until

if TYPE_CHECKING:
    from mpi4py import MPI


T = TypeVar("T")


def end_process_after(seconds: float) -> None:
    """Have the operating system end this process after so many seconds, wherever it may hang.

    A later call replaces an earlier one. A signal with its default action is used, since a process
    that hangs inside MPI may never run Python code again.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(seconds))


def within(seconds: float, work: Callable[[], T]) -> T:
    """Call `work` in a thread and return its result; the thread is abandoned if it hangs.

    Raises:
        TimeoutError: if `work` has not returned within `seconds`.
        OSError: if `work` raised it.
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
"""Buffers of unfinished messages: MPI may still access them, so they must not be freed."""


class NoAnswerError(Exception):
    """The other rank did not receive or send a message within the time limit."""


class Partner:
    """Point-to-point communication with another rank; no message takes longer than a limit.

    Every method raises NoAnswerError if its message is not through within `limit_seconds`.
    """

    def __init__(
        self, communicator: "MPI.Intracomm", rank: int, tag: int, limit_seconds: float
    ) -> None:
        self.rank = rank
        self.limit_seconds = limit_seconds
        self._communicator = communicator
        self._tag = tag

    def send(self, message: Buffer) -> None:
        """Send a message."""
        request = self._communicator.Isend(message, dest=self.rank, tag=self._tag)
        self._finish(request, message)

    def receive(self, message: Buffer) -> None:
        """Receive a message into the buffer, which must have its size."""
        request = self._communicator.Irecv(message, source=self.rank, tag=self._tag)
        self._finish(request, message)

    def send_number(self, number: float) -> None:
        """Send one number."""
        self.send(np.array([number], dtype=np.float64))

    def receive_number(self) -> float:
        """Receive one number and return it."""
        message = np.zeros(1, dtype=np.float64)
        self.receive(message)
        return float(message[0])

    def _finish(self, request: "MPI.Request", message: Buffer) -> None:
        if wait_until(lambda: bool(request.Test()), self.limit_seconds):
            return
        _given_up.append((request, message))
        raise NoAnswerError(f"rank {self.rank} did not answer within {self.limit_seconds:g} s")


_FIRST_TAG, _TAGS = 20_000, 10_000  # the MPI standard guarantees tags up to 32767
_GRACE_SECONDS = 5.0


class RanksMissingError(Exception):
    """Some ranks did not take part in a collective operation within the time limit."""

    def __init__(self, ranks: Sequence[int], purpose: str, limit_seconds: float) -> None:
        self.ranks = tuple(ranks)
        self.purpose = purpose
        self.limit_seconds = limit_seconds
        numbers = ", ".join(map(str, ranks))
        were = f"rank {numbers} was" if len(self.ranks) == 1 else f"ranks {numbers} were"
        super().__init__(f"{were} not there for {purpose} within {limit_seconds:g} s")


class BoundedCollectives:
    """Collective operations that end within a time limit and name the ranks that are missing.

    Those of MPI would wait for ever. As with those, every rank must make the same calls in the
    same order. Rank 0 collects the values and tells the others about missing ranks.
    """

    def __init__(self, communicator: "MPI.Intracomm", limit_seconds: float) -> None:
        self.communicator = communicator
        self.limit_seconds = limit_seconds
        self._calls = 0

    def gather(self, value: T, purpose: str, *, extra_seconds: float = 0.0) -> list[T]:
        """Return the values of all ranks in rank order on rank 0, and an empty list elsewhere.

        Args:
            value: this rank's value.
            purpose: what the ranks are about to do, for error messages.
            extra_seconds: time that the ranks may take on top of the usual limit.

        Raises:
            RanksMissingError: on every rank that took part, if another one did not in time.
        """
        limit_seconds = self.limit_seconds + extra_seconds
        tag = self._next_tag()
        if self.communicator.rank:
            self.communicator.isend(value, dest=0, tag=tag)
            missing = self._from_root(tag, purpose, limit_seconds)
            if missing:
                raise RanksMissingError(missing, purpose, limit_seconds)
            return []
        values: dict[int, T] = {0: value}
        wait_until(lambda: self._all_arrived(values, tag), limit_seconds)
        missing = [rank for rank in range(self.communicator.size) if rank not in values]
        self._to_all(missing, [rank for rank in values if rank], tag, purpose, limit_seconds)
        if missing:
            raise RanksMissingError(missing, purpose, limit_seconds)
        return [values[rank] for rank in range(self.communicator.size)]

    def broadcast(self, value: T, purpose: str, *, extra_seconds: float = 0.0) -> T:
        """Return rank 0's value on every rank.

        Raises:
            RanksMissingError: on a rank that the value did not reach in time, and on rank 0.
        """
        limit_seconds = self.limit_seconds + extra_seconds
        tag = self._next_tag()
        if self.communicator.rank:
            received: T = self._from_root(tag, purpose, limit_seconds)
            return received
        self._to_all(value, range(1, self.communicator.size), tag, purpose, limit_seconds)
        return value

    def _next_tag(self) -> int:
        self._calls += 1
        return _FIRST_TAG + self._calls % _TAGS

    def _all_arrived(self, values: dict[int, T], tag: int) -> bool:
        from mpi4py import MPI

        status = MPI.Status()
        while message := self.communicator.improbe(MPI.ANY_SOURCE, tag, status):
            values[status.source] = message.recv()
        return len(values) == self.communicator.size

    def _from_root(self, tag: int, purpose: str, limit_seconds: float) -> Any:
        # Rank 0 first waits for the other ranks as long as the limit allows.
        limit_seconds += _GRACE_SECONDS
        try:
            return receive_object(self.communicator, 0, tag, limit_seconds)
        except TimeoutError:
            raise RanksMissingError([0], purpose, limit_seconds) from None

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
