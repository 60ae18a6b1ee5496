"""Records what a rank does and when: busy time, step times, losses and the trace."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpc_lpm.engine.faults import NonFiniteLossError
from hpc_lpm.engine.records import SegmentRecord, StepNorms, TracedInstruction
from hpc_lpm.engine.stragglers import Pace
from hpc_lpm.profiling.timer import ClockTimer, Timer

StepListener = Callable[[int, float | None, float, bool], None]
"""Called with (step, loss or None, seconds since the step before ended, was the update skipped)."""


@dataclass(frozen=True)
class _Unread:
    kind: str
    micro_batch: int
    start: object
    stop: object
    traced: bool


@dataclass(frozen=True)
class _EndedStep:
    number: int
    loss: Tensor | None
    samples: int
    skipped: bool
    end: object
    intervals: list[_Unread]


class Recorder:
    """Collects the records of one rank.

    The trace has `trace_steps` steps from step `trace_from` of the run on. By default these are the
    first of each segment, of which the last is written. A trace of the whole run would not open in
    a viewer.

    On a GPU an instruction is only queued when Python goes on. It is timed by marks of `timer` in
    the GPU's stream. Marks and losses are read when the next step ends: meanwhile the GPU has the
    work of that step to do, so that reading never makes it wait.

    `first_non_finite` is the first step with a loss that is not finite since training has begun or
    has been cut short, None if there is none. `pace` judges if passes have become slow; None judges
    nothing.
    """

    def __init__(
        self,
        trace_steps: int,
        on_step: StepListener,
        timer: Timer | None = None,
        *,
        steps_before: int = 0,
        stops_at_non_finite: bool = True,
        trace_from: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.pace = pace
        self.segments: list[SegmentRecord] = []
        self.peak_in_flight = 0
        self.lag_counts: Counter[int] = Counter()
        self.skipped_updates = 0
        self.first_non_finite: int | None = None
        self._trace_steps = trace_steps
        self._trace_from = trace_from
        self._on_step = on_step
        self._timer = timer or ClockTimer()
        self._origin: object = None
        self._steps_before = steps_before
        self._stops_at_non_finite = stops_at_non_finite
        self._skipped = False
        self._norms: list[tuple[int, Tensor, Tensor]] = []
        self._losses: list[Tensor] = []
        self._samples = 0
        self._heard_loss: Tensor | None = None
        self._unread: list[_Unread] = []
        self._steps_ended = 0
        self._unreported: _EndedStep | None = None
        self._last: tuple[str, int] | None = None

    def last_instruction(self) -> str:
        """Say in words what was done last, for those who ask why nothing is done any more."""
        if self._last is None:
            return "before its first instruction"
        kind, micro_batch = self._last
        return f"its last instruction was the {kind} of micro-batch {micro_batch}, step {self.step}"

    def cut_after(self, step: int) -> None:
        """Forget the steps of the last segment, which has ended, behind this one."""
        segment = self.segments[-1]
        kept = len(segment.step_losses) - max(0, self.step - step - 1)
        for of_steps in (segment.step_end_seconds, segment.step_losses, segment.step_samples):
            del of_steps[kept:]
        self._norms = [each for each in self._norms if each[0] <= step]
        self.first_non_finite = None
        self.go_on_after(step + 1)

    def go_on_after(self, steps: int) -> None:
        """Number the steps to come as those behind so many others; no segment has begun."""
        self._steps_before, self._steps_ended = steps, 0

    def begin_segment(self) -> None:
        """Start the clock of a segment; every rank calls this right after a barrier."""
        if self.segments and self._trace_from is None:
            self.segments[-1].intervals.clear()
        self._steps_before += self._steps_ended
        self.segments.append(SegmentRecord())
        self._steps_ended = 0
        self._unread.clear()
        self._origin = self._timer.mark()

    def end_segment(self) -> None:
        """Stop the clock of the segment."""
        end = self._timer.mark()
        self._report()
        self._read(self._unread)
        self.segments[-1].end_seconds = self._since_origin(end)

    def _since_origin(self, mark: object) -> float:
        return self._timer.seconds(self._origin, mark)

    def start(self) -> object:
        """Return a mark of the timer for the start of an instruction."""
        return self._timer.mark()

    def add(self, kind: str, micro_batch: int, start: object) -> None:
        """Record that the instruction which started at the mark `start` has just ended."""
        stop = self._timer.mark()
        self._last = kind, micro_batch
        self._unread.append(_Unread(kind, micro_batch, start, stop, self._is_traced()))

    def _is_traced(self) -> bool:
        if self._trace_from is None:
            return self._steps_ended < self._trace_steps
        return self._trace_from <= self.step < self._trace_from + self._trace_steps

    def _read(self, intervals: list[_Unread]) -> None:
        segment = self.segments[-1]
        for unread in intervals:
            duration = self._timer.seconds(unread.start, unread.stop)
            before = segment.seconds_by_kind.get(unread.kind, 0.0)
            segment.seconds_by_kind[unread.kind] = before + duration
            if self.pace:
                self.pace.add(unread.kind, duration)
            if unread.traced:
                start = self._since_origin(unread.start)
                segment.intervals.append(
                    TracedInstruction(unread.kind, unread.micro_batch, start, duration)
                )

    def add_in_flight(self, count: int) -> None:
        """Record how many micro-batches are between their forward and their backward pass."""
        self.peak_in_flight = max(self.peak_in_flight, count)

    def add_lag(self, updates: int) -> None:
        """Record how many updates came between a micro-batch's forward and its backward pass."""
        self.lag_counts[updates] += 1

    def add_loss(self, loss: Tensor, samples: int) -> None:
        """Record the mean loss of one micro-batch and the number of its samples.

        On a GPU the loss is read one step later.

        Raises:
            NonFiniteLossError: if the loss is on a CPU and not finite, unless such steps are
                skipped.
        """
        loss = loss.detach()
        if loss.dtype in (torch.bfloat16, torch.float16):
            loss = loss.float()  # in which micro-batches are added up
        if loss.device.type == "cpu":
            self._check_finite(self.step, float(loss))
        self._losses.append(loss * samples)
        self._samples += samples

    def step_loss(self) -> Tensor:
        """Return the mean loss of the step so far, float64 [1], on the device of the losses."""
        mean = torch.stack(self._losses).sum() / self._samples
        return mean.to(torch.float64).reshape(1)

    def hear_loss(self, loss: Tensor) -> None:
        """Take note of the mean loss of a step that another rank has computed, a tensor [1]."""
        self._heard_loss = loss

    @property
    def last_loss(self) -> float | None:
        """The mean loss of the newest step that this rank has heard of; None before the first.

        On a GPU, asking for it waits until that step has been computed.
        """
        return None if self._heard_loss is None else float(self._heard_loss)

    def add_norms(self, gradient: Tensor, weight: Tensor) -> None:
        """Keep the norms of this rank's gradients and weights for the log; nothing is read yet."""
        self._norms.append((self.step, gradient, weight))

    def take_norms(self) -> list[StepNorms]:
        """Return the norms kept since the last call."""
        taken = [
            StepNorms(step, float(gradient), float(weight))
            for step, gradient, weight in self._norms
        ]
        self._norms.clear()
        return taken

    def skip_update(self) -> None:
        """Record that the update of this step leaves the weights as they are."""
        self.skipped_updates += 1
        self._skipped = True

    def end_step(self) -> None:
        """Record that the weights were updated, or that the update was skipped.

        A step is reported when the next one ends: by then its loss is on the host, so that reading
        it never makes a GPU wait.

        Raises:
            NonFiniteLossError: if the loss of the step before is not finite, unless such steps are
                skipped.
        """
        loss = None
        if self._losses:
            mean = torch.stack(self._losses).sum() / self._samples
            self._heard_loss = mean
            loss = _on_its_way_to_host(mean)
        end = self._timer.mark()
        ended = _EndedStep(self.step, loss, self._samples, self._skipped, end, self._unread)
        self._skipped = False
        self._losses.clear()
        self._samples = 0
        self._unread = []
        self._steps_ended += 1
        self._report()
        self._unreported = ended

    @property
    def step(self) -> int:
        """The optimizer step that is trained, counted from 0 over the whole run."""
        return self._steps_before + self._steps_ended

    def _report(self) -> None:
        if self._unreported is None:
            return
        ended, self._unreported = self._unreported, None
        segment = self.segments[-1]
        previous = segment.step_end_seconds[-1] if segment.step_end_seconds else 0.0
        # Once this mark is read, the step's other marks are set and its loss has arrived.
        segment.step_end_seconds.append(self._since_origin(ended.end))
        self._read(ended.intervals)
        loss = None if ended.loss is None else float(ended.loss)
        if loss is not None and not self._check_finite(ended.number, loss):
            loss = None
        segment.step_losses.append(0.0 if ended.loss is None else loss)
        segment.step_samples.append(ended.samples)
        seconds = segment.step_end_seconds[-1] - previous
        if self.pace:
            self.pace.end_step(ended.number, seconds)
        self._on_step(ended.number, loss, seconds, ended.skipped)

    def _check_finite(self, step: int, loss: float) -> bool:
        finite = math.isfinite(loss)
        if not finite and self._stops_at_non_finite:
            raise NonFiniteLossError(step, loss)
        if not finite and self.first_non_finite is None:
            self.first_non_finite = step
        return finite


def _on_its_way_to_host(loss: Tensor) -> Tensor:
    """Return the loss in host memory; from a GPU it arrives before a mark set after this call."""
    if loss.device.type == "cpu":
        return loss
    host = torch.empty(loss.shape, dtype=loss.dtype, pin_memory=True)
    return host.copy_(loss, non_blocking=True)
