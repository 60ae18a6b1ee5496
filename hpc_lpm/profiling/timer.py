"""Timers of work on a device: the clock on CPUs, events in the stream on GPUs."""

import time
from typing import Protocol

import torch


class Timer(Protocol):
    """Marks points between pieces of work and measures the time between two of them."""

    def mark(self) -> object:
        """Mark this point of the work."""

    def seconds(self, start: object, stop: object) -> float:
        """Return the seconds of work between two marks."""


class ClockTimer:
    """Times work on devices that compute while Python waits."""

    def mark(self) -> float:
        """Read the clock."""
        return time.perf_counter()

    def seconds(self, start: object, stop: object) -> float:
        """Subtract two readings."""
        assert isinstance(start, float) and isinstance(stop, float)
        return stop - start


class CudaTimer:
    """Times the work in a GPU's stream, which runs while Python is already ahead of it."""

    def mark(self) -> torch.cuda.Event:
        """Record an event in the current stream."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, start: object, stop: object) -> float:
        """Wait for the later event and ask for the time between the two."""
        assert isinstance(start, torch.cuda.Event) and isinstance(stop, torch.cuda.Event)
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3


def timer_for(device: torch.device) -> Timer:
    """Return the timer that suits `device`."""
    return CudaTimer() if device.type == "cuda" else ClockTimer()
