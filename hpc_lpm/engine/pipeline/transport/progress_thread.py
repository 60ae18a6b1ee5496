"""Progress of MPI's messages while Python computes."""

import threading
import time
from typing import Any, Protocol

from mpi4py import MPI

_INTERVAL_SECONDS = 1e-3
_CALLS_A_TURN = 16
"""One call moves about one fragment (128 KiB over TCP): 16 a millisecond are 2 GB/s."""

_UNUSED_TAG = 32_000


class Progress(Protocol):
    """Is told how many requests are outstanding."""

    def posted(self, requests: int) -> None:
        """So many more are."""

    def completed(self, requests: int) -> None:
        """So many fewer are."""


class NoProgress:
    """Leaves progress to MPI: it makes some whenever it is called, and of its own if it can."""

    def posted(self, requests: int) -> None:
        """Nothing is to be done."""

    def completed(self, requests: int) -> None:
        """Nothing is to be done."""


class ProgressThread:
    """Calls into MPI about every millisecond while requests are outstanding, and sleeps otherwise.

    MPI moves a message only while it is called: over TCP a large one stalls as soon as both sides
    compute. The thread looks for a message that nobody sends (MPI_Iprobe), which drives all
    requests and touches none, so that it needs no lock but MPI's own (MPI_THREAD_MULTIPLE). Use as
    a context manager: MPI must not be called any more once it is finalised. A process that ends
    without that does not wait for the thread.
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
        """Wake up if nothing was outstanding."""
        with self._changed:
            self._outstanding += requests
            self._changed.notify()

    def completed(self, requests: int) -> None:
        """Go back to sleep if nothing is outstanding any more."""
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
