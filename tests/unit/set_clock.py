"""A clock that no load of the machine changes, for what is timed and for what it waits for."""

from collections.abc import Callable

OF_READINGS = 1e-4
"""Seconds: more than all readings of the clock in one pass take."""


class SetClock:
    """Stands for the module `time`: sleeping takes its time, reading the clock a microsecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        """Return the seconds so far."""
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def seconds_of(self, act: Callable[[], object]) -> float:
        """Return how long a call takes."""
        began = self.now
        act()
        return self.now - began
