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
    BACKWARD_INPUT,
    BACKWARD_WEIGHTS,
    FORWARD,
    LAST_FORWARD,
    REPLAY,
    Codes,
    CodeTable,
    DevicePasses,
)
from hpc_lpm.schedules.placement import Placement

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
        idle_share: the share of the steady state in which each device neither computes nor moves
            bytes itself, the mean of its replicas.
        overall_idle_share: likewise, with warm-up and drain.
        peak_in_flight: how many micro-batches each stage holds at most between their passes.
        update_seconds: when the first device has taken each of its optimizer steps.
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

    The steady state lasts from one optimizer step of a device to another, the same steps for all:
    the first device takes them in the later half of what it does before any device begins its final
    drain, so that the transient at the start is left out. A simulation too short to have two such
    steps is taken as a whole.

    Raises:
        ValueError: if an argument is out of range, or the schedule deadlocks; `validate` tells
            where.
    """
    stages = len(clock.forward_seconds)
    placement = schedule.placement(stages)
    peaks, codes = [0] * stages, list[Codes]()
    for device, held in enumerate(placement.held):
        # Of all devices together the passes take ten times the memory of their codes.
        passes = DevicePasses.of(
            schedule, device, stages, micro_batches_per_step, total_micro_batches, lead
        )
        for stage, most in zip(held, passes.most_in_flight, strict=True):
            peaks[stage] = most
        codes.append(passes.codes(replay=replay, replicas=replicas, flushes=schedule.flushes))
    # Without jitter all replicas do the same at the same time, so that one stands for all.
    played = replicas if jitter else 1
    devices = _Devices(codes, clock, placement, played, max(peaks, default=0), jitter)
    del codes
    devices.run()
    return _outcome(devices, peaks, micro_batches_per_step, total_micro_batches)


class _Devices:
    """The state of all devices; device r K + k is replica r of device k.

    Messages of the next pass of either direction wait in a queue of each chunk. One queue that is
    never empty stands for all that waits for nothing, one for messages that nobody reads, and one
    that stays empty stops a device at its end.
    """

    def __init__(
        self,
        codes: Sequence[Codes],
        clock: PipelineClock,
        placement: Placement,
        replicas: int,
        most_in_flight: int,
        jitter: Jitter | None,
    ) -> None:
        self.in_a_replica, self.replicas = len(codes), replicas
        self.count = count = self.in_a_replica * replicas
        self._table = table = CodeTable(placement.chunks)
        longest = max(map(len, codes)) + 1
        rows = np.full((count, longest), table.end, table.dtype)
        for device in range(count):
            own = codes[device % self.in_a_replica]
            rows[device, : len(own)] = own
            last = np.flatnonzero(own < table.chunks)[-1:]
            rows[device, last] += LAST_FORWARD * table.chunks
        self._codes = rows.reshape(-1)
        self._position = np.arange(count) * longest
        self._factors = None
        if jitter is not None:
            factors = np.ones((count, longest), np.float32)
            for device in range(count):
                passes = rows[device] < table.reduce
                factors[device, passes] = jitter.factors(device, int(passes.sum()))
            self._factors = factors.reshape(-1)
        self._operation = np.arange(count) * table.count
        self._overlap = clock.overlap
        self._lay_queues(placement, clock, most_in_flight)
        if any(table.reduce in own for own in codes):
            receives = self._receives.reshape(count, table.count)
            receives[:, table.update] = self._averages + np.arange(count)
        self._averaging = np.array(
            placement.on_devices([clock.all_reduce_seconds(k) for k in range(placement.stages)])
        )
        steps = int((codes[0] == table.update).sum())
        self.now, self.busy = np.zeros(count), np.zeros(count)
        self.updated, self.busy_at_update = np.zeros((2, steps, count))
        self.last_forward = np.zeros(count)
        self._updates = np.zeros(count, np.int64)
        self._reduces = np.zeros(count, np.int64)
        self._reduced = np.full((steps, self.in_a_replica), -np.inf)
        self._reducing = np.zeros((steps, self.in_a_replica), np.int64)

    def _lay_queues(self, placement: Placement, clock: PipelineClock, most_in_flight: int) -> None:
        """Lay down for each code of each device how long it takes, awaits and sends."""
        count, table, stages = self.count, self._table, placement.stages
        # Queues of activations and of gradients by replica and stage, then averages by device.
        of_gradients, self._averages = stages * self.replicas, 2 * stages * self.replicas
        always, nobody, never = range(self._averages + count, self._averages + count + 3)
        shape = count, table.count
        receives, sends = np.full(shape, always), np.full(shape, nobody)
        receives[:, table.end] = never
        seconds, sending, receiving = np.zeros((3, *shape))
        # Messages from one device to another one share a link; what nobody reads has the first.
        links, numbers = np.zeros(shape, np.int64), {(-1, -1): 0}
        for device in range(count):
            replica, place = divmod(device, self.in_a_replica)
            for chunk, stage in enumerate(placement.held[place]):
                for kind, duration in _durations(clock, stage).items():
                    code = table.of(kind, chunk)
                    seconds[device, code] = duration
                    if kind not in _WAY:
                        continue
                    way, base = _WAY[kind], of_gradients * (_WAY[kind] < 0) + replica * stages
                    before, behind = stage - way, stage + way
                    if 0 <= before < stages:
                        receives[device, code] = base + stage
                        receiving[device, code] = _transfer(clock, placement, before, stage)
                    if 0 <= behind < stages:
                        sends[device, code] = base + behind
                        sending[device, code] = _transfer(clock, placement, stage, behind)
                        link = device, placement.device(behind)
                        links[device, code] = numbers.setdefault(link, len(numbers))
        self._receives, self._sends = receives.reshape(-1), sends.reshape(-1)
        self._links, self._seconds = links.reshape(-1), seconds.reshape(-1)
        self._sending, self._receiving = sending.reshape(-1), receiving.reshape(-1)
        self._link_free = np.zeros(len(numbers))
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
        if (self._codes[self._position] != self._table.end).any():
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
        link = self._links[operation]
        leaves = np.maximum(now, self._link_free[link])
        free = leaves + sending
        self._link_free[link] = free
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
        if code.max() >= self._table.first_noted:
            self._take_note(code, np.arange(self.count)[chosen])
        return True

    def _take_note(self, code: Codes, device: _Integers) -> None:
        """Keep the times of what was executed besides passes, and of last forwards."""
        table = self._table
        last = device[(code >= table.first_noted) & (code < table.reduce)]
        self.last_forward[last] = self.now[last]
        updating = device[code == table.update]
        steps = self._updates[updating]
        self.updated[steps, updating] = self.now[updating]
        self.busy_at_update[steps, updating] = self.busy[updating]
        self._updates[updating] += 1
        for reducing in device[code == table.reduce]:
            self._reduce(int(reducing))

    def _reduce(self, device: int) -> None:
        """Let a device take part in the average of its step, which is sent to all once complete."""
        step, place = self._reduces[device], device % self.in_a_replica
        self._reduces[device] += 1
        self._reduced[step, place] = max(self._reduced[step, place], self.now[device])
        self._reducing[step, place] += 1
        if self._reducing[step, place] == self.replicas:
            queue = self._averages + np.arange(place, self.count, self.in_a_replica)
            slot = (queue << self._shift) + (self._sent[queue] & self._mask)
            self._messages[slot] = self._reduced[step, place] + self._averaging[place]
            self._sent[queue] += 1


_WAY = {FORWARD: 1, LAST_FORWARD: 1, BACKWARD: -1, BACKWARD_INPUT: -1}
"""By kind of pass whether its messages go down the stages or up."""


def _durations(clock: PipelineClock, stage: int) -> dict[int, float]:
    """Return the seconds of each kind of pass."""
    first_half, second_half = clock.halves_at(stage)
    return {
        FORWARD: clock.forward_seconds[stage],
        BACKWARD: clock.backward_seconds[stage],
        REPLAY: clock.forward_seconds[stage],
        BACKWARD_INPUT: first_half,
        BACKWARD_WEIGHTS: second_half,
        LAST_FORWARD: clock.forward_seconds[stage],
    }


def _transfer(clock: PipelineClock, placement: Placement, sender: int, receiver: int) -> float:
    """Return how long a message between neighbouring stages travels: not at all within a device."""
    if placement.device(sender) == placement.device(receiver):
        return 0.0
    return clock.boundary_seconds[min(sender, receiver)]


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
        idle_share=_idle_share(busy, seconds, devices.in_a_replica),
        overall_idle_share=_idle_share(
            devices.busy, np.full_like(devices.now, makespan), devices.in_a_replica
        ),
        peak_in_flight=peaks,
        update_seconds=updates.tolist(),
    )


def _idle_share(busy: _Floats, seconds: _Floats, devices: int) -> list[float]:
    shares = 1 - np.divide(busy, seconds, out=np.ones_like(busy), where=seconds > 0)
    means: list[float] = np.maximum(shares, 0.0).reshape(-1, devices).mean(axis=0).tolist()
    return means
