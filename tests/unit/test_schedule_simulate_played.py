"""Pipelines simulated on arrays against their programmes, played one instruction at a time."""

from dataclasses import dataclass
from random import Random

import pytest

from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.clock import Jitter, PipelineClock
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    ReceiveActivation,
    ReceiveGradient,
    Reduce,
    Replay,
    SendActivation,
    SendGradient,
    Update,
)
from hpc_lpm.schedules.ordering import forwards_ahead
from hpc_lpm.schedules.playback import play
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.schedules.simulate import simulate

PASSES = (Forward, Backward, BackwardInput, BackwardWeights, Replay)


class InPairs(Schedule):
    """A user's schedule with an order of its own: two forwards, then their backwards."""

    name, description, flushes = "in-pairs", "pairs of micro-batches", True

    def ahead(self, stage, stages, micro_batches_per_step, lead):
        return min(1, micro_batches_per_step - 1)

    def compute(self, stage, stages, micro_batches_per_step, total_micro_batches, lead):
        for first in range(0, total_micro_batches, micro_batches_per_step):
            count = min(micro_batches_per_step, total_micro_batches - first)
            done = list(forwards_ahead(first, count, 0, micro_batches_per_step))
            forwards = [item for item in done if isinstance(item, Forward)]
            others = [item for item in done if not isinstance(item, Forward)]
            pairs = [forwards[place : place + 2] for place in range(0, count, 2)]
            for pair in pairs:
                yield from pair
                for _ in pair:
                    yield others.pop(0)
            yield from others


@dataclass
class Case:
    schedule: Schedule
    clock: PipelineClock
    micro_batches: int
    total: int
    lead: int
    more: dict

    @classmethod
    def drawn(cls, seed: int) -> "Case":
        """Times are multiples of 1/64, so that sums of busy times are exact."""
        random = Random(seed)
        devices, micro_batches = random.randint(1, 7), random.randint(1, 6)
        schedule = random.choice([schedule for _, schedule in SCHEDULES.items()])
        if schedule.takes_chunks:
            schedule = schedule.with_chunks(random.randint(1, 3))
        if random.random() < 0.15:
            schedule = InPairs()
        stages = devices * schedule.chunks
        replicas = random.choice([1, 1, 2, 3])
        averages = [random.randint(0, 40) / 8 for _ in range(stages)] if replicas > 1 else ()
        backwards = [random.randint(1, 32) / 8 for _ in range(stages)]
        # Both halves together may take longer than a whole backward.
        halves = [
            (seconds * random.randint(0, 8) / 8, seconds * random.randint(0, 8) / 8)
            for seconds in backwards
        ]
        clock = PipelineClock(
            [random.randint(1, 16) / 8 for _ in range(stages)],
            backwards,
            [random.choice([0, 0, random.randint(1, 40)]) / 8 for _ in range(stages - 1)],
            overlap=random.random() < 0.7,
            averaging_seconds=averages,
            halves_seconds=random.choice([halves, ()]),
        )
        total = micro_batches * random.randint(1, 12) - random.randint(0, micro_batches - 1)
        more = {"replay": random.random() < 0.4, "replicas": replicas}
        return cls(schedule, clock, micro_batches, total, random.randint(1, 3), more)

    def simulated(self, jitter: Jitter | None = None):
        return simulate(
            self.schedule, self.clock, self.micro_batches, self.total, self.lead, **self.more,
            jitter=jitter,
        )  # fmt: skip

    @property
    def placement(self):
        return self.schedule.placement(len(self.clock.forward_seconds))

    def programmes(self):
        return self.schedule.programmes(
            len(self.clock.forward_seconds), self.micro_batches, self.total, self.lead, **self.more
        )


def busy_until(line, end):
    """Add up what keeps a stage busy until its update number `end` is taken, None for ever."""
    seconds = 0.0
    for timed in line:
        if isinstance(timed.instruction, Update) and timed.instruction.step == end:
            break
        seconds += timed.end_seconds - timed.start_seconds
    return seconds


def steady(lines, per_step, total):
    """Return period and idle shares, from the definition in `simulate`."""
    updates = [
        {i.instruction.step: i.end_seconds for i in line if isinstance(i.instruction, Update)}
        for line in lines
    ]
    drain = min(
        max(i.end_seconds for i in line if isinstance(i.instruction, Forward | SendActivation))
        for line in lines
    )
    steps = [step for step, end in updates[0].items() if end <= drain]
    steps = steps[len(steps) // 2 :] if len(steps) > 3 else steps
    if len(steps) < 2:
        makespan = max(line[-1].end_seconds for line in lines)
        idle = [1 - busy_until(line, None) / makespan for line in lines]
        return makespan / total, idle
    first, last = steps[0], steps[-1]
    done = [min((step + 1) * per_step, total) for step in (first, last)]
    period = (updates[0][last] - updates[0][first]) / (done[1] - done[0])
    idle = [
        1 - (busy_until(line, last) - busy_until(line, first)) / (own[last] - own[first])
        for line, own in zip(lines, updates, strict=True)
    ]
    return period, idle


def in_flight(programme, chunk):
    held = [0]
    for item in programme:
        if isinstance(item, PASSES) and item.chunk == chunk:
            ends = isinstance(item, Backward | BackwardWeights)
            held.append(held[-1] + isinstance(item, Forward) - ends)
    return max(held)


@pytest.mark.parametrize("seed", range(300))
def test_random_pipelines_take_the_times_of_their_played_programmes(seed):
    case = Case.drawn(seed)
    programmes = case.programmes()
    playback = play(programmes, case.clock, case.placement)
    result = case.simulated()
    assert result.makespan_seconds == playback.makespan_seconds
    assert result.update_seconds == [
        i.end_seconds for i in playback.timelines[0] if isinstance(i.instruction, Update)
    ]
    period, idle = steady(playback.timelines, case.micro_batches, case.total)
    assert result.period_seconds == pytest.approx(period, rel=1e-12)
    assert result.idle_share == pytest.approx(idle, abs=1e-12)
    assert result.overall_idle_share == pytest.approx(
        [1 - busy_until(line, None) / playback.makespan_seconds for line in playback.timelines],
        abs=1e-12,
    )
    assert result.peak_in_flight == [
        in_flight(programmes[case.placement.device(stage)], case.placement.chunk(stage))
        for stage in range(case.placement.stages)
    ]


class Follower:
    """Follows all replicas together: an average is there once the last of them has reduced."""

    def __init__(self, case: Case, jitter: Jitter) -> None:
        self.clock, self.programmes = case.clock, case.programmes()
        self.held = case.placement.held
        self.replicas = case.more["replicas"]
        count = len(self.programmes)
        self.devices = [divmod(device, count) for device in range(self.replicas * count)]
        self.factors = {
            (replica, place): iter(
                jitter.factors(
                    replica * count + place,
                    sum(isinstance(item, PASSES) for item in self.programmes[place]),
                ).tolist()
            )
            for replica, place in self.devices
        }
        self.place = dict.fromkeys(self.devices, 0)
        self.now = dict.fromkeys(self.devices, 0.0)
        self.free: dict[tuple, float] = {}
        self.messages: dict[tuple, tuple[float, float]] = {}
        self.reduced: dict[tuple, list[float]] = {}

    def makespan(self) -> float:
        """Let each device go on as far as it can, in turn, until none can."""
        moved = True
        while moved:
            moved = False
            for device in self.devices:
                programme = self.programmes[device[1]]
                while self.place[device] < len(programme) and self.executes(
                    device, programme[self.place[device]]
                ):
                    self.place[device] += 1
                    moved = True
        assert all(place == len(self.programmes[own]) for (_, own), place in self.place.items())
        return max(self.now.values())

    def executes(self, device, item) -> bool:
        """Execute an instruction and return True, or False if it has to wait."""
        place, clock = device[1], self.clock
        match item:
            case SendActivation() | SendGradient():
                self.send(device, item)
            case ReceiveActivation() | ReceiveGradient():
                return self.receives(device, item)
            case Reduce():
                self.reduced.setdefault((place, item.step), []).append(self.now[device])
            case Update() if self.replicas > 1:
                times = self.reduced.get((place, item.step), [])
                if len(times) < self.replicas:
                    return False
                averaging = sum(clock.averaging_seconds[stage] for stage in self.held[place])
                self.now[device] = max(self.now[device], max(times) + averaging)
            case Forward() | Replay() | Backward() | BackwardInput() | BackwardWeights():
                seconds = self.seconds(item, self.held[place][item.chunk])
                self.now[device] += seconds * next(self.factors[device])
        return True

    def seconds(self, item, stage) -> float:
        clock = self.clock
        backward = clock.backward_seconds[stage]
        first = second = backward / 2
        if clock.halves_seconds:
            first, second = clock.halves_seconds[stage]
        match item:
            case Backward():
                return backward
            case BackwardInput():
                return first
            case BackwardWeights():
                return second
        return clock.forward_seconds[stage]

    def way(self, device, item) -> tuple[int, int, float]:
        """Return the stages that a message goes from and to, and how long it travels."""
        own = self.held[device[1]][item.chunk]
        other = own + (1 if isinstance(item, SendActivation | ReceiveGradient) else -1)
        sends = isinstance(item, SendActivation | SendGradient)
        inside = other in self.held[device[1]]
        seconds = 0.0 if inside else self.clock.boundary_seconds[min(own, other)]
        return (own, other, seconds) if sends else (other, own, seconds)

    def send(self, device, item) -> None:
        replica, place = device
        sender, receiver, seconds = self.way(device, item)
        (target,) = [number for number, held in enumerate(self.held) if receiver in held]
        link = (replica, place, target)
        start = max(self.now[device], self.free.get(link, 0.0))
        self.free[link] = start + seconds
        self.messages[replica, sender, receiver, item.micro_batch] = start, self.free[link]
        if not self.clock.overlap:
            self.now[device] += seconds

    def receives(self, device, item) -> bool:
        sender, receiver, seconds = self.way(device, item)
        message = self.messages.get((device[0], sender, receiver, item.micro_batch))
        if message is None:
            return False
        start, end = message
        if self.clock.overlap:
            self.now[device] = max(self.now[device], end)
        else:
            self.now[device] = max(self.now[device], start) + seconds
        return True


@pytest.mark.parametrize("seed", range(300, 360))
def test_replicas_whose_passes_vary_wait_for_the_slowest_at_every_average(seed):
    case, jitter = Case.drawn(seed), Jitter(0.3, 0.05, 4.0, seed)
    assert case.simulated(jitter).makespan_seconds == Follower(case, jitter).makespan()


def test_factors_have_the_mean_and_spread_that_were_asked_for():
    factors = Jitter(sigma=0.2, seed=3).factors(5, 100_000)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.01)
    stalled = Jitter(0.0, 0.1, 10.0, seed=3).factors(5, 100_000)
    assert sorted({round(float(factor), 4) for factor in stalled}) == [1.0, 10.0]
    assert float((stalled > 1).mean()) == pytest.approx(0.1, abs=0.01)


def test_a_seed_decides_the_factors_and_devices_vary_by_themselves():
    drawn = [
        Jitter(0.1, seed=seed).factors(device, 50).tolist()
        for seed, device in ((1, 0), (1, 1), (2, 0))
    ]
    assert len({tuple(each) for each in drawn}) == 3
    assert drawn[0] == Jitter(0.1, seed=1).factors(0, 50).tolist()
    # What a device does first does not depend on how much follows.
    assert drawn[0][:20] == Jitter(0.1, seed=1).factors(0, 20).tolist()
