"""What this process waits for at the moment, for threads that watch over it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Wait:
    """A wait of this process.

    Attributes:
        since: when it began, by time.perf_counter.
        peer: the rank that is waited for, None for all.
        in_library: whether it is a call of a library, which may wait or compute.
    """

    since: float
    peer: int | None
    in_library: bool = False


class Waits:
    """Holds the wait that this process is in; of its own only those that last are told.

    Attributes:
        current: the wait, None if there is none. One that has ended with an error stays, for those
            who ask why a run has ended.
        watchdog: says which rank all wait for; None where nothing watches.
    """

    def __init__(self) -> None:
        self.current: Wait | None = None
        self.watchdog: Callable[[], str | None] | None = None

    def blame(self) -> str | None:
        """Return a sentence that names the rank which all wait for, None if it is not known."""
        return self.watchdog() if self.watchdog else None

    def begin(self, since: float, peer: int | None) -> None:
        """Tell that this process waits for a rank, or for all."""
        self.current = Wait(since, peer)

    def end(self) -> None:
        """Tell that it does not wait any more."""
        self.current = None

    @contextmanager
    def in_library(self) -> Iterator[None]:
        """Surround a call of a library that waits for other ranks by itself."""
        before = self.current
        self.current = Wait(time.perf_counter(), None, in_library=True)
        yield
        self.current = before


WAITS = Waits()
"""Those of the main thread, which trains."""
