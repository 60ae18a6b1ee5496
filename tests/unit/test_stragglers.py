"""A rank whose passes have become slow is told from one on a machine that is only noisy."""

import random
from collections.abc import Callable

import pytest

from hpc_lpm.engine.stragglers import Pace, PassTimes, factors_beside_others

FORWARD_SECONDS, BACKWARD_SECONDS, UPDATE_SECONDS = 0.02, 0.04, 0.01
MICRO_BATCHES = 4


class Trained:
    """Plays a rank: passes of known length, times a factor that depends on the step."""

    def __init__(self, factor: Callable[[int], float], *, rank: int = 1) -> None:
        self.said: list[str] = []
        self.pace = Pace(rank, self.said.append)
        self._factor = factor
        self._step = 0

    def train(self, seconds: float) -> None:
        """Train for so many seconds."""
        while seconds > 0:
            factor = self._factor(self._step)
            passes = [("forward", FORWARD_SECONDS), ("backward", BACKWARD_SECONDS)] * MICRO_BATCHES
            elapsed = 0.0
            for kind, length in [*passes, ("update", UPDATE_SECONDS)]:
                self.pace.add(kind, length * factor)
                elapsed += length * factor
            self.pace.add("receive", 10.0)
            self.pace.end_step(self._step, elapsed)
            self._step += 1
            seconds -= elapsed


@pytest.mark.parametrize("seed", range(20))
def test_noise_jitter_and_drift_are_not_reported(seed: int) -> None:
    draw = random.Random(seed)

    def factor(step: int) -> float:
        # A busy machine: 20 % of noise, a tenth of the steps half as fast, now and then a pause of
        # many seconds; and the whole machine drifts by 15 % to and fro.
        drift = 1.15 if step // 500 % 2 else 1.0
        stall = 40.0 if draw.random() < 0.003 else 2.0 if draw.random() < 0.1 else 1.0
        return drift * stall * draw.uniform(0.8, 1.2)

    rank = Trained(factor)
    rank.train(1800)
    assert rank.said == []
    assert rank.pace.straggles == []


@pytest.mark.parametrize("seed", range(5))
def test_a_rank_that_becomes_slow_is_reported_once_and_once_more_when_it_is_over(seed: int) -> None:
    draw = random.Random(seed)
    rank = Trained(lambda step: draw.uniform(0.8, 1.2) * (2.2 if 1000 <= step < 1100 else 1.0))
    rank.train(600)
    begun, over = rank.said
    (straggle,) = rank.pace.straggles
    step_seconds = 2.2 * (MICRO_BATCHES * (FORWARD_SECONDS + BACKWARD_SECONDS) + UPDATE_SECONDS)
    assert straggle.rank == 1
    assert straggle.factor == pytest.approx(2.2, rel=0.1)
    assert straggle.from_step == pytest.approx(1000, abs=8)
    assert straggle.to_step == pytest.approx(1100, abs=16)
    assert straggle.seconds == pytest.approx(100 * step_seconds, rel=0.1)
    assert "rank 1 on " in begun
    assert f"is slow: since step {straggle.from_step} its passes take " in begun
    assert f"is no longer slow since step {straggle.to_step}: " in over


def test_a_rank_that_stands_still_for_most_of_the_time_is_reported() -> None:
    # As one that is stopped and continued in turn: most passes are as fast as ever.
    rank = Trained(lambda step: 8.0 if step > 200 and step % 4 == 0 else 1.0)
    rank.train(200)
    assert len(rank.said) == 1
    assert rank.pace.straggles[0].to_step is None


def test_a_rank_that_was_disturbed_while_it_started_is_held_to_what_came_after() -> None:
    def factor(step: int) -> float:
        return 2.0 if step < 150 or step >= 600 else 1.0

    rank = Trained(factor)
    rank.train(400)
    assert [straggle.from_step for straggle in rank.pace.straggles] == [pytest.approx(600, abs=8)]


def test_long_steps_are_judged_each_by_itself() -> None:
    rank = Trained(lambda step: 100.0 * (2.0 if step >= 10 else 1.0))
    rank.train(26 * 10 + 52 * 5)
    assert [straggle.from_step for straggle in rank.pace.straggles] == [10]


def times(forward_seconds: float, *, passes: int = 500, elapsed_seconds: float = 30.0) -> PassTimes:
    made = PassTimes(steps=passes // MICRO_BATCHES, elapsed_seconds=elapsed_seconds)
    for _ in range(passes):
        made.add("forward", forward_seconds)
        made.add("backward", 2 * forward_seconds)
    return made


def test_replicas_are_compared_with_each_other_and_stages_by_their_plan() -> None:
    replicas = [times(0.01), times(0.0105), times(0.019)]
    assert factors_beside_others(replicas, []) == pytest.approx([1.0, 1.0, 1.85], abs=0.4)
    # Twice the work is twice the time; the machine is half as fast as the profiled one.
    as_planned = factors_beside_others([times(0.01), times(0.02)], [0.015, 0.03])
    assert as_planned == pytest.approx([1.0, 1.0])
    slow = factors_beside_others([times(0.01), times(0.02)], [0.03, 0.03])
    assert slow == pytest.approx([1.0, 2.0], abs=0.5)


def test_a_rank_that_others_need_not_wait_for_is_no_straggler() -> None:
    idle = times(0.02, elapsed_seconds=100.0)
    assert factors_beside_others([times(0.01), idle], [])[1] == 1.0


def test_a_rank_that_is_slow_from_the_start_is_reported_at_a_drain() -> None:
    rank = Trained(lambda step: 1.0)
    rank.train(5)
    busy = MICRO_BATCHES * (FORWARD_SECONDS + BACKWARD_SECONDS) + UPDATE_SECONDS
    planned = [busy / MICRO_BATCHES, busy / MICRO_BATCHES / 3]
    other = Trained(lambda step: 1.0, rank=0)

    def meet() -> None:
        both = [other.pace.times_to_compare(), rank.pace.times_to_compare()]
        rank.pace.compare(both, planned)
        other.pace.compare(both, planned)

    other.train(5)
    meet()
    assert rank.said == []  # too short a time to judge
    for _ in range(3):
        rank.train(8)
        other.train(8)
        meet()
    assert other.said == []
    (straggle,) = rank.pace.straggles
    assert (straggle.from_step, straggle.to_step) == (0, None)
    assert straggle.factor == pytest.approx(3.0)
    assert straggle.seconds > 20
    (sentence,) = rank.said
    assert sentence.endswith("3.0 times as long as planned, compared with the other ranks")
