"""What a rank did and when: busy time, step times, losses and the trace."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hpc_lpm.engine.faults import NonFiniteLossError

COMPUTING = frozenset({"load", "forward", "replay", "backward", "update"})
"""Kinds of intervals in which a rank computes; the rest of its time it is idle."""

StepListener = Callable[[int, float | None, float], None]
"""Called with (step, loss or None, seconds since the last step ended)."""


@dataclass(frozen=True)
class Interval:
    """One instruction: `start_seconds` counts from the start of its epoch."""

    kind: str
    micro_batch: int
    start_seconds: float
    duration_seconds: float


@dataclass
class EpochRecord:
    """One epoch on one rank; times count from the epoch's common start."""

    step_end_seconds: list[float] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    busy_seconds: float = 0.0
    end_seconds: float = 0.0


class Recorder:
    """Collects the records of one rank.

    Intervals are kept for the first `trace_steps` steps of each epoch only, of which the last
    epoch's are written: a trace of the whole run would not open in a viewer.
    """

    def __init__(self, trace_steps: int, on_step: StepListener) -> None:
        self.epochs: list[EpochRecord] = []
        self.peak_in_flight = 0
        self.lag_counts: Counter[int] = Counter()
        self._trace_steps = trace_steps
        self._on_step = on_step
        self._origin = 0.0
        self._steps_before = 0
        self._losses: list[Tensor] = []
        self._unreported: tuple[int, Tensor | None, float] | None = None

    def begin_epoch(self) -> None:
        """Start the clock of an epoch; every rank calls it right after a barrier."""
        if self.epochs:
            self._steps_before += len(self.epochs[-1].step_end_seconds)
            self.epochs[-1].intervals.clear()
        self.epochs.append(EpochRecord())
        self._origin = time.perf_counter()

    def end_epoch(self) -> None:
        """Stop the clock of the epoch."""
        self.epochs[-1].end_seconds = self._now()
        self._report()

    def _now(self) -> float:
        return time.perf_counter() - self._origin

    def start(self) -> float:
        """Return the time at which an interval starts, in seconds from the epoch's start."""
        return self._now()

    def add(self, kind: str, micro_batch: int, start_seconds: float) -> None:
        """Record that an instruction which started at `start_seconds` has just ended."""
        epoch = self.epochs[-1]
        duration = self._now() - start_seconds
        if kind in COMPUTING:
            epoch.busy_seconds += duration
        if len(epoch.step_end_seconds) < self._trace_steps:
            epoch.intervals.append(Interval(kind, micro_batch, start_seconds, duration))

    def add_in_flight(self, count: int) -> None:
        """Record how many micro-batches are between their forward and their backward pass."""
        self.peak_in_flight = max(self.peak_in_flight, count)

    def add_lag(self, updates: int) -> None:
        """Record how many updates came between a micro-batch's forward and its backward pass."""
        self.lag_counts[updates] += 1

    def add_loss(self, loss: Tensor) -> None:
        """Record the mean loss of one micro-batch.

        On an accelerator it is read one step later, without a wait.

        Raises:
            NonFiniteLossError: if the loss is not finite, where that is known already.
        """
        if loss.device.type == "cpu":
            _check_finite(self._step(), float(loss))
        self._losses.append(loss.detach())

    def end_step(self) -> None:
        """Record that the weights were updated.

        A step is reported when the next one ends: its loss is then long computed, so that reading
        it never makes a GPU wait.

        Raises:
            NonFiniteLossError: if that loss is not finite.
        """
        self._report()
        epoch = self.epochs[-1]
        now = self._now()
        previous = epoch.step_end_seconds[-1] if epoch.step_end_seconds else 0.0
        epoch.step_end_seconds.append(now)
        loss = torch.stack(self._losses).mean() if self._losses else None
        self._losses.clear()
        self._unreported = (self._step() - 1, loss, now - previous)

    def _step(self) -> int:
        return self._steps_before + len(self.epochs[-1].step_end_seconds)

    def _report(self) -> None:
        if self._unreported is None:
            return
        step, loss, seconds = self._unreported
        self._unreported = None
        if loss is not None:
            _check_finite(step, float(loss))
            self.epochs[-1].step_losses.append(float(loss))
        self._on_step(step, None if loss is None else float(loss), seconds)


def _check_finite(step: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise NonFiniteLossError(step, loss)
