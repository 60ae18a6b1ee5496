"""Simulate a pipeline: how long a schedule takes, which stages wait and what they hold.

All devices advance together on arrays: in every round each one executes its next pass if what that
waits for has been sent. A round takes as long for a thousand stages as Python takes for some forty
operations on arrays, and there are about as many rounds as a stage has passes. Times are those of
`play`, which looks at each instruction by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.clock import Jitter, PipelineClock
from hpc_lpm.schedules.passes import (
    BACKWARD,
    FORWARD,
    REDUCE,
    REPLAY,
    UPDATE,
    Codes,
    StagePasses,
)

_LAST_FORWARD, _END = UPDATE + 1, UPDATE + 2
"""Stand for the last forward of every device, and behind its last code."""
_CODES = _END + 1
_PASSES = (FORWARD, BACKWARD, REPLAY, _LAST_FORWARD)

_FIRST_STEPS = 3
"""Simulations of no more steps than these before their drain are steady all along."""

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Simulation:
    """The outcome of a simulation.

    Attributes:
        makespan_seconds: when the last device has finished.
        period_seconds: from one micro-batch to the next in steady state.
        idle_share: the share of the steady state in which each stage neither computes nor moves
            bytes itself, the mean of its replicas.
        overall_idle_share: likewise, with warm-up and drain.
        peak_in_flight: how many micro-batches each stage holds at most between their passes.
        update_seconds: when the first stage has taken each of its optimizer steps.
    """

    makespan_seconds: float
    period_seconds: float
    idle_share: list[float]
    overall_idle_share: list[float]
    peak_in_flight: list[int]
    update_seconds: list[float]


def simulate(
    schedule: Schedule,
    clock: PipelineClock,
    micro_batches_per_step: int,
    total_micro_batches: int,
    lead: int = 1,
    *,
    replay: bool = False,
    replicas: int = 1,
    jitter: Jitter | None = None,
) -> Simulation:
    """Simulate `total_micro_batches` micro-batches on every replica of the clock's stages.

    The steady state lasts from one optimizer step of a stage to another, the same steps for all:
    the first stage takes them in the later half of what it does before any stage begins its final
    drain, so that the transient at the start is left out. A simulation too short to have two such
    steps is taken as a whole.

    Raises:
        ValueError: if an argument is out of range, or the schedule deadlocks; `validate` tells
            where.
    """
    stages = len(clock.forward_seconds)
    passes = [
        StagePasses.of(schedule, stage, stages, micro_batches_per_step, total_micro_batches, lead)
        for stage in range(stages)
    ]
    peaks = [stage.most_in_flight for stage in passes]
    codes = [
        stage.codes(replay=replay, replicas=replicas, flushes=schedule.flushes) for stage in passes
    ]
    del passes
    # Without jitter all replicas do the same at the same time, so that one stands for all.
    played = replicas if jitter else 1
    devices = _Devices(codes, clock, played, max(peaks, default=0), jitter)
    del codes
    devices.run()
    return _outcome(devices, peaks, micro_batches_per_step, total_micro_batches)


class _Devices:
    """The state of all devices; device r K + k is replica r of stage k.

    Messages of a device's next pass of either direction wait in a queue of their own. One queue
    that is never empty stands for all that waits for nothing, one for messages that nobody reads,
    and one that stays empty stops a device at its end.
    """

    def __init__(
        self,
        codes: Sequence[Codes],
        clock: PipelineClock,
        replicas: int,
        most_in_flight: int,
        jitter: Jitter | None,
    ) -> None:
        self.stages, self.replicas = len(codes), replicas
        self.count = count = self.stages * replicas
        stage = np.tile(np.arange(self.stages), replicas)
        longest = max(map(len, codes)) + 1
        rows = np.full((count, longest), _END, np.uint8)
        for device in range(count):
            own = codes[device % self.stages]
            rows[device, : len(own)] = own
            rows[device, np.flatnonzero(own == FORWARD)[-1:]] = _LAST_FORWARD
        self._codes = rows.reshape(-1)
        self._position = np.arange(count) * longest
        self._factors = None
        if jitter is not None:
            factors = np.ones((count, longest), np.float32)
            for device in range(count):
                passes = np.isin(rows[device], _PASSES)
                factors[device, passes] = jitter.factors(device, int(passes.sum()))
            self._factors = factors.reshape(-1)
        self._operation = np.arange(count) * _CODES
        self._overlap = clock.overlap
        averages = any(REDUCE in own for own in codes)
        self._lay_queues(stage, clock, most_in_flight, averages=averages)
        self._averaging = np.array([clock.all_reduce_seconds(k) for k in range(self.stages)])
        steps = int((codes[0] == UPDATE).sum())
        self.now, self.busy = np.zeros(count), np.zeros(count)
        self.updated, self.busy_at_update = np.zeros((2, steps, count))
        self.last_forward = np.zeros(count)
        self._updates = np.zeros(count, np.int64)
        self._reduces = np.zeros(count, np.int64)
        self._reduced = np.full((steps, self.stages), -np.inf)
        self._reducing = np.zeros((steps, self.stages), np.int64)

    def _lay_queues(
        self, stage: _Integers, clock: PipelineClock, most_in_flight: int, *, averages: bool
    ) -> None:
        count, last = self.count, self.stages - 1
        # Queues 3 d to 3 d + 2: activations, gradients and averages for device d.
        always, nobody, never = 3 * count, 3 * count + 1, 3 * count + 2
        device = np.arange(count)
        receives = np.full((count, _CODES), always)
        receives[:, FORWARD] = np.where(stage > 0, 3 * device, always)
        receives[:, BACKWARD] = np.where(stage < last, 3 * device + 1, always)
        if averages:
            receives[:, UPDATE] = 3 * device + 2
        receives[:, _END] = never
        sends = np.full((count, _CODES), nobody)
        sends[:, FORWARD] = np.where(stage < last, 3 * (device + 1), nobody)
        sends[:, BACKWARD] = np.where(stage > 0, 3 * (device - 1) + 1, nobody)
        seconds, sending, receiving = np.zeros((3, count, _CODES))
        boundary = np.array([0.0, *clock.boundary_seconds, 0.0])
        seconds[:, FORWARD] = seconds[:, REPLAY] = np.array(clock.forward_seconds)[stage]
        seconds[:, BACKWARD] = np.array(clock.backward_seconds)[stage]
        sending[:, FORWARD] = receiving[:, BACKWARD] = boundary[stage + 1]
        sending[:, BACKWARD] = receiving[:, FORWARD] = boundary[stage]
        for table in (receives, sends, seconds, sending, receiving):
            table[:, _LAST_FORWARD] = table[:, FORWARD]
        self._receives, self._sends = receives.reshape(-1), sends.reshape(-1)
        self._seconds = seconds.reshape(-1)
        self._sending, self._receiving = sending.reshape(-1), receiving.reshape(-1)
        self._link_free = np.zeros(never + 1)
        places = 1 << max(1, most_in_flight).bit_length()
        self._mask, self._shift = places - 1, places.bit_length() - 1
        self._messages = np.zeros((never + 1) * places)
        self._sent, self._received = np.zeros((2, never + 1), np.int64)
        self._sent[always] = np.iinfo(np.int64).max // 2

    def run(self) -> None:
        """Execute everything.

        Raises:
            ValueError: if devices wait for each other for ever.
        """
        while self._round():
            pass
        if (self._codes[self._position] != _END).any():
            raise ValueError("the schedule deadlocks: validate its programmes first")

    def _round(self) -> bool:
        """Let every device execute what comes next, if it can; return whether any could."""
        position = self._position
        code = self._codes[position]
        operation = self._operation + code
        queue = self._receives[operation]
        received = self._received[queue]
        ready = self._sent[queue] > received
        chosen: slice | _Integers = slice(None)
        if not ready.all():
            chosen = np.flatnonzero(ready)
            if not len(chosen):
                return False
            position, code, operation = position[chosen], code[chosen], operation[chosen]
            queue, received = queue[chosen], received[chosen]
        arrived = self._messages[(queue << self._shift) + (received & self._mask)]
        now = np.maximum(self.now[chosen], arrived)
        busy = self._seconds[operation]
        if self._factors is not None:
            busy = busy * self._factors[position]
        if not self._overlap:
            # Without overlap the receiver's processor is what moves the bytes.
            now += self._receiving[operation]
        now += busy
        target = self._sends[operation]
        sending = self._sending[operation]
        leaves = np.maximum(now, self._link_free[target])
        free = leaves + sending
        self._link_free[target] = free
        sent = self._sent[target]
        place = (target << self._shift) + (sent & self._mask)
        self._messages[place] = free if self._overlap else leaves
        self._sent[target] = sent + 1
        self._received[queue] = received + 1
        if not self._overlap:
            now += sending
            busy = busy + self._receiving[operation] + sending
        self.now[chosen] = now
        self.busy[chosen] += busy
        self._position[chosen] += 1
        if code.max() >= REDUCE:
            self._take_note(code, np.arange(self.count)[chosen])
        return True

    def _take_note(self, code: Codes, device: _Integers) -> None:
        """Keep the times of what was executed besides passes, and of last forwards."""
        last = device[code == _LAST_FORWARD]
        self.last_forward[last] = self.now[last]
        updating = device[code == UPDATE]
        steps = self._updates[updating]
        self.updated[steps, updating] = self.now[updating]
        self.busy_at_update[steps, updating] = self.busy[updating]
        self._updates[updating] += 1
        for reducing in device[code == REDUCE]:
            self._reduce(int(reducing))

    def _reduce(self, device: int) -> None:
        """Let a device take part in the average of its step, which is sent to all once complete."""
        step, stage = self._reduces[device], device % self.stages
        self._reduces[device] += 1
        self._reduced[step, stage] = max(self._reduced[step, stage], self.now[device])
        self._reducing[step, stage] += 1
        if self._reducing[step, stage] == self.replicas:
            queue = 3 * np.arange(stage, self.count, self.stages) + 2
            place = (queue << self._shift) + (self._sent[queue] & self._mask)
            self._messages[place] = self._reduced[step, stage] + self._averaging[stage]
            self._sent[queue] += 1


def _outcome(
    devices: _Devices, peaks: list[int], micro_batches_per_step: int, total_micro_batches: int
) -> Simulation:
    makespan = float(devices.now.max())
    updates = devices.updated[:, 0]
    steady = np.flatnonzero(updates <= devices.last_forward.min())
    if len(steady) > _FIRST_STEPS:
        steady = steady[len(steady) // 2 :]
    if len(steady) < 2:
        seconds, busy = np.full_like(devices.now, makespan), devices.busy
        micro_batches, period = total_micro_batches, makespan
    else:
        first, last = steady[0], steady[-1]
        seconds = devices.updated[last] - devices.updated[first]
        busy = devices.busy_at_update[last] - devices.busy_at_update[first]
        done = np.minimum((steady + 1) * micro_batches_per_step, total_micro_batches)
        micro_batches, period = int(done[-1] - done[0]), float(updates[last] - updates[first])
    return Simulation(
        makespan_seconds=makespan,
        period_seconds=period / max(micro_batches, 1),
        idle_share=_idle_share(busy, seconds, devices.stages),
        overall_idle_share=_idle_share(
            devices.busy, np.full_like(devices.now, makespan), devices.stages
        ),
        peak_in_flight=peaks,
        update_seconds=updates.tolist(),
    )


def _idle_share(busy: _Floats, seconds: _Floats, stages: int) -> list[float]:
    shares = 1 - np.divide(busy, seconds, out=np.ones_like(busy), where=seconds > 0)
    means: list[float] = np.maximum(shares, 0.0).reshape(-1, stages).mean(axis=0).tolist()
    return means
