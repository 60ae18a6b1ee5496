"""A thread that keeps MPI's messages moving while Python computes."""

import threading
import time
from typing import Any, Protocol

from mpi4py import MPI

_INTERVAL_SECONDS = 1e-3
_CALLS_A_TURN = 16
"""One call moves about one fragment (128 KiB over TCP), so 16 in a millisecond move 2 GB/s."""

_UNUSED_TAG = 32_000


class Progress(Protocol):
    """Keeps requests moving, and is told how many are outstanding."""

    def posted(self, requests: int) -> None:
        """Add `requests` to the outstanding count."""

    def completed(self, requests: int) -> None:
        """Subtract `requests` from the outstanding count."""


class NoProgress:
    """Leaves progress to MPI, which makes some whenever it is called."""

    def posted(self, requests: int) -> None:
        """Do nothing."""

    def completed(self, requests: int) -> None:
        """Do nothing."""


class ProgressThread:
    """Calls into MPI about every millisecond while requests are outstanding, and sleeps otherwise.

    MPI moves a message only while it is called: over TCP a large one stalls as soon as both sides
    compute. The thread looks for a message that nobody sends (MPI_Iprobe). This drives all requests
    and touches none, so it needs no lock but MPI's own (MPI_THREAD_MULTIPLE). Use it as a context
    manager, since MPI must not be called any more once it is finalised; a process that ends within
    the context does not wait for the thread.
    """

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        self._outstanding = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="mpi-progress", daemon=True)

    def __enter__(self) -> "ProgressThread":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def posted(self, requests: int) -> None:
        """Add `requests` to the outstanding count, and wake the thread up."""
        with self._changed:
            self._outstanding += requests
            self._changed.notify()

    def completed(self, requests: int) -> None:
        """Subtract `requests` from the outstanding count; the thread sleeps once it is 0."""
        with self._changed:
            self._outstanding -= requests

    def _run(self) -> None:
        while self._needed():
            for _ in range(_CALLS_A_TURN):
                self._communicator.Iprobe(MPI.ANY_SOURCE, _UNUSED_TAG)
            time.sleep(_INTERVAL_SECONDS)

    def _needed(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._outstanding > 0)
            return not self._stopped
