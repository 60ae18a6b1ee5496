"""Simulate a pipeline: how long its programmes take, which stages wait and what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_lpm.schedules.instructions import (
    Backward,
    Computation,
    Forward,
    Programme,
    Replay,
    Update,
)
from hpc_lpm.schedules.playback import StageTimeline, play


@dataclass(frozen=True)
class PipelineClock:
    """Seconds of every stage for one micro-batch, and of every boundary for one message.

    `forward_seconds` and `backward_seconds` have one entry per stage, `boundary_seconds` one less.
    `averaging_seconds` has what a stage's replicas take to average the gradients of a step, one
    entry per stage; without replicas there is none.
    """

    forward_seconds: Sequence[float]
    backward_seconds: Sequence[float]
    boundary_seconds: Sequence[float]
    overlap: bool = True
    averaging_seconds: Sequence[float] = ()

    def compute_seconds(self, stage: int, instruction: Computation) -> float:
        """Return the seconds of a pass; an optimizer step is taken to cost nothing."""
        match instruction:
            case Forward() | Replay():
                return self.forward_seconds[stage]
            case Backward():
                return self.backward_seconds[stage]
        return 0.0

    def transfer_seconds(self, boundary: int) -> float:
        """Return the seconds of a message between stages `boundary` and `boundary + 1`."""
        return self.boundary_seconds[boundary]

    def all_reduce_seconds(self, stage: int) -> float:
        """Return the seconds from the start of an average to the update that waits for it."""
        return self.averaging_seconds[stage] if self.averaging_seconds else 0.0


@dataclass(frozen=True)
class Simulation:
    """The outcome of a simulation.

    `timelines[stage]` holds what keeps a stage busy, in order. `period_seconds` is the
    time from one micro-batch to the next in steady state. `idle_share[stage]` is the share of that
    state in which a stage neither computes nor moves bytes itself, `overall_idle_share` the same
    with warm-up and drain. `peak_in_flight[stage]` counts micro-batches between their passes.
    """

    timelines: list[StageTimeline]
    makespan_seconds: float
    period_seconds: float
    idle_share: list[float]
    overall_idle_share: list[float]
    peak_in_flight: list[int]


def simulate(programmes: Sequence[Programme], clock: PipelineClock) -> Simulation:
    """Simulate the programmes of all stages (communication included, first stage first).

    Steady state is taken between optimizer steps of the first stage: the later half of those that
    come before any stage begins its final drain, so that the transient at the start is left out.
    Programmes too short to have two such steps are taken as a whole.

    Raises:
        ValueError: if the programmes deadlock; `validate` tells where.
    """
    playback = play(programmes, clock)
    if any(stopped is not None for stopped in playback.stopped):
        raise ValueError("the programmes deadlock: validate them first")
    timelines = [
        [timed for timed in timeline if timed.end_seconds > timed.start_seconds]
        for timeline in playback.timelines
    ]
    makespan = playback.makespan_seconds
    window = _steady_window(playback.timelines)
    if window is None:
        micro_batches = sum(isinstance(item, Backward) for item in programmes[0])
        window = _Window(0.0, makespan, micro_batches)
    return Simulation(
        timelines=timelines,
        makespan_seconds=makespan,
        period_seconds=(window.end - window.start) / max(window.micro_batches, 1),
        idle_share=[_idle_share(timeline, window.start, window.end) for timeline in timelines],
        overall_idle_share=[_idle_share(timeline, 0.0, makespan) for timeline in timelines],
        peak_in_flight=[_peak_in_flight(programme) for programme in programmes],
    )


@dataclass(frozen=True)
class _Window:
    start: float
    end: float
    micro_batches: int


def _steady_window(timelines: list[StageTimeline]) -> _Window | None:
    drain_begins = min(
        (
            max(
                (i.end_seconds for i in timeline if isinstance(i.instruction, Forward)), default=0.0
            )
            for timeline in timelines
        ),
        default=0.0,
    )
    updates: list[tuple[float, int]] = []
    backwards = 0
    for timed in timelines[0]:
        if isinstance(timed.instruction, Backward):
            backwards += 1
        elif isinstance(timed.instruction, Update) and timed.end_seconds <= drain_begins:
            updates.append((timed.end_seconds, backwards))
    steady = updates[len(updates) // 2 :] if len(updates) > 3 else updates
    if len(steady) < 2:
        return None
    (start, before), (end, after) = steady[0], steady[-1]
    return _Window(start, end, after - before)


def _idle_share(timeline: StageTimeline, start: float, end: float) -> float:
    if end <= start:
        return 0.0
    busy = sum(
        max(0.0, min(timed.end_seconds, end) - max(timed.start_seconds, start))
        for timed in timeline
    )
    return max(0.0, 1.0 - busy / (end - start))


def _peak_in_flight(programme: Programme) -> int:
    peak = in_flight = 0
    for instruction in programme:
        if isinstance(instruction, Forward):
            in_flight += 1
            peak = max(peak, in_flight)
        elif isinstance(instruction, Backward):
            in_flight -= 1
    return peak
