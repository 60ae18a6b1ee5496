"""Compares FBP's fixed order with an order of arrival, and with the best that any order can do.

    python -m benchmarks.arrival_order [--micro-batches 4000] [--out FOLDER]

In order of arrival, as PACI has it (arXiv 2606.07881), a stage that is free runs whatever has
arrived first. Both orders may hold as many micro-batches in flight at each stage. The first table
has the jitter of `benchmarks.scale`, the second one random pipelines without: unequal stages,
messages of up to a mean stage's time, leads of 1 and 2. All is simulated, and does not depend on
the machine.
"""

import argparse
import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

import numpy as np

from benchmarks.race import markdown
from benchmarks.scale import BACKWARD, FORWARD, JITTERS, MESSAGE
from hpc_lpm.schedules.clock import Jitter, PipelineClock
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.schedules.simulate import simulate

STAGES, LEADS, SEEDS = (8, 64), (1, 2), 5
RANDOM_PIPELINES, ATTAINED = 200, 1.001
"""How many are drawn, and up to how many times the least period counts as that period."""
_FBP = SCHEDULES.named("fbp")
_MICRO_BATCHES_A_STEP = 4


def limits(stages: int, lead: int) -> list[int]:
    """Return how many micro-batches each stage holds at most between their passes."""
    return [_FBP.in_flight(k, stages, _MICRO_BATCHES_A_STEP, lead) for k in range(stages)]


def least_period(clock: PipelineClock, in_flight: Sequence[int]) -> float:
    """Return the least seconds a micro-batch takes in any order with so many in flight.

    The slowest stage takes them. So does each stage's in-flight micro-batches' way to the last
    stage and back, shared among them.
    """
    passes = list(map(sum, zip(clock.forward_seconds, clock.backward_seconds, strict=True)))
    messages = [2 * seconds for seconds in clock.boundary_seconds]
    ways = [(sum(passes[k:]) + sum(messages[k:])) / most for k, most in enumerate(in_flight)]
    return max(*passes, *ways)


def fixed_period(
    clock: PipelineClock, micro_batches: int, lead: int, jitter: Jitter | None
) -> float:
    """Return the seconds a micro-batch takes under FBP."""
    outcome = simulate(_FBP, clock, _MICRO_BATCHES_A_STEP, micro_batches, lead, jitter=jitter)
    return outcome.period_seconds


@dataclass
class _Stage:
    """A stage that runs what has arrived first."""

    seconds: tuple[float, float]
    most_in_flight: int
    factors: Sequence[float]

    def __post_init__(self) -> None:
        self.arrived: tuple[deque[float], deque[float]] = deque(), deque()
        self.run = [0, 0]
        self.is_busy = False

    def chosen(self) -> int | None:
        """Return 0 for a forward and 1 for a backward, None if nothing can run."""
        has_room = self.run[0] - self.run[1] < self.most_in_flight
        waiting = [
            (arrived[0], direction)
            for direction, arrived in enumerate(self.arrived)
            if arrived and (direction or has_room)
        ]
        return min(waiting)[1] if waiting else None

    def begin(self, direction: int) -> float:
        """Begin a pass and return its seconds."""
        factor = self.factors[sum(self.run)]
        self.arrived[direction].popleft()
        self.run[direction] += 1
        self.is_busy = True
        return self.seconds[direction] * factor


def arrival_period(
    clock: PipelineClock,
    in_flight: Sequence[int],
    micro_batches: int,
    jitter: Jitter | None,
) -> float:
    """Return the seconds a micro-batch takes in order of arrival, in the steady middle of a run."""
    last = len(in_flight) - 1
    passes = zip(clock.forward_seconds, clock.backward_seconds, strict=True)
    drawn = jitter or Jitter()
    stages = [
        _Stage(seconds, most, drawn.factors(k, 2 * micro_batches).tolist())
        for k, (seconds, most) in enumerate(zip(passes, in_flight, strict=True))
    ]
    stages[0].arrived[0].extend([0.0] * micro_batches)
    events: list[tuple[float, int, int, int | None, int]] = []
    number, finished = count(), []

    def begin_next(now: float, k: int) -> None:
        stage = stages[k]
        if not stage.is_busy and (direction := stage.chosen()) is not None:
            ends = now + stage.begin(direction)
            heapq.heappush(events, (ends, next(number), k, direction, 0))

    def send(now: float, sender: int, direction: int) -> None:
        receiver = sender + (-1 if direction else 1)
        if receiver < 0:
            finished.append(now)
        elif receiver > last:
            stages[last].arrived[1].append(now)
        else:
            arrives = now + clock.boundary_seconds[min(sender, receiver)]
            heapq.heappush(events, (arrives, next(number), receiver, None, direction))

    begin_next(0.0, 0)
    while events:
        now, _, k, done, arriving = heapq.heappop(events)
        if done is None:
            stages[k].arrived[arriving].append(now)
        else:
            stages[k].is_busy = False
            send(now, k, done)
        begin_next(now, k)
    first, end = micro_batches // 4, 3 * micro_batches // 4
    return (finished[end] - finished[first]) / (end - first)


def unequal(stages: int, spread: float, message: float, seed: int) -> PipelineClock:
    """Return the clock of stages whose passes have lognormal times."""
    generator = np.random.default_rng(seed)
    forward = FORWARD * np.exp(spread * generator.standard_normal(stages))
    backward = BACKWARD * forward * np.exp(0.3 * generator.standard_normal(stages))
    return PipelineClock(forward.tolist(), backward.tolist(), [message] * (stages - 1))


def jitter_table(micro_batches: int) -> str:
    """Return the shares of the least period's rate that both orders reach."""
    lines = []
    kinds = {"equal": 0.0, "unequal": 0.2}
    for (kind, spread), stages, lead in product(kinds.items(), STAGES, LEADS):
        clock = unequal(stages, spread, MESSAGE, seed=0)
        if kind == "equal":
            clock = PipelineClock([FORWARD] * stages, [BACKWARD] * stages, [MESSAGE] * (stages - 1))
        most = limits(stages, lead)
        least = least_period(clock, most)
        cells = [kind, str(stages), str(lead)]
        for jitter in JITTERS.values():
            seeds = range(SEEDS if jitter else 1)
            varied = [Jitter(**{**vars(jitter), "seed": n}) if jitter else None for n in seeds]
            fixed = [fixed_period(clock, micro_batches, lead, each) for each in varied]
            arrived = [arrival_period(clock, most, micro_batches, each) for each in varied]
            cells += [f"{least / np.mean(taken):.3f}" for taken in (fixed, arrived)]
        lines.append(cells)
    columns = ["stages", "K", "lead", "fixed", "arrival", "fixed, jitter", "arrival, jitter"]
    return markdown(columns, lines)


def random_table(micro_batches: int) -> str:
    """Return how near both orders come to the least period of random pipelines."""
    generator = np.random.default_rng(0)
    taken: dict[str, list[float]] = {"fixed": [], "arrival": []}
    for seed in range(RANDOM_PIPELINES):
        stages, lead = int(generator.integers(2, 17)), int(generator.choice(LEADS))
        message = (FORWARD + BACKWARD) * float(generator.choice([0.0, 0.05, 0.2, 0.35]))
        clock = unequal(stages, float(generator.choice([0.0, 0.1, 0.3, 0.6])), message, seed)
        most = limits(stages, lead)
        least = least_period(clock, most)
        taken["fixed"].append(fixed_period(clock, micro_batches, lead, None) / least)
        taken["arrival"].append(arrival_period(clock, most, micro_batches, None) / least)
    lines = [
        [
            order,
            f"{sum(ratio < ATTAINED for ratio in ratios)} of {RANDOM_PIPELINES}",
            f"{np.mean(ratios):.3f}",
            f"{max(ratios):.3f}",
        ]
        for order, ratios in taken.items()
    ]
    return markdown(["order", "the least period", "mean, times it", "worst, times it"], lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--micro-batches", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path("results/reference/scale"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, table in (("order-jitter", jitter_table), ("order-random", random_table)):
        text = table(arguments.micro_batches)
        (arguments.out / f"{name}.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
