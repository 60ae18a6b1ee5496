"""What this process waits for at the moment, for a thread that watches over it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wait:
    """A wait of this process.

    Attributes:
        since: when it began, by time.perf_counter.
        peer: the rank that is waited for, None for all.
    """

    since: float
    peer: int | None


class Waits:
    """Holds the wait that this process is in; only those that last are told."""

    def __init__(self) -> None:
        self.current: Wait | None = None

    def begin(self, since: float, peer: int | None) -> None:
        """Tell that this process waits for a rank, or for all."""
        self.current = Wait(since, peer)

    def end(self) -> None:
        """Tell that it does not wait any more."""
        self.current = None


WAITS = Waits()
"""Those of the main thread, which trains."""
