"""A stage that hears step by step whether another one follows executes its schedule as it is."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.insertions import lagged_micro_batches
from hpc_lpm.schedules.instructions import Backward, Forward, Programme, Update
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.schedules.stepwise import StepwiseProgramme

LAST_STEPS = 1, 2, 3, 8, 11
"""Trainings of this many steps: shorter than any warm-up, and longer than what is kept of one."""


def programmes_of(
    schedule: Schedule, stage: int, stages: int, per_step: int, lead: int, **more: Any
) -> Callable[[int], Programme]:
    return lambda total: schedule.programme(stage, stages, per_step, total, lead, **more)


def executed(stepwise: StepwiseProgramme, steps: int, last: int) -> Programme:
    done = [item for step in range(steps - 1) for item in stepwise.step(step)]
    return done + stepwise.rest(steps - 1, last)


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("replay", [False, True])
def test_steps_and_the_rest_are_the_programme_for_as_many_micro_batches(
    name: str, replay: bool
) -> None:
    schedule = SCHEDULES.named(name)
    leads = (1, 3) if schedule.takes_lead else (1,)
    for devices, per_step, lead, replicas in itertools.product((1, 3, 5), (1, 2, 4), leads, (1, 2)):
        pairs = [(0, devices - 1), (0, 1), (1, 2)]
        tied = sorted({(owner, copy) for owner, copy in pairs if owner < copy < devices})
        for device, ties in itertools.product(range(devices), ([], tied) if tied else ([],)):
            programme_of = programmes_of(
                schedule,
                *(device, devices * schedule.chunks, per_step, lead),
                replay=replay,
                replicas=replicas,
                ties=ties,
            )
            stepwise = StepwiseProgramme(programme_of, per_step)
            for steps, last in itertools.product(LAST_STEPS, {1, per_step}):
                total = (steps - 1) * per_step + last
                assert executed(stepwise, steps, last) == programme_of(total)
            lagged = lagged_micro_batches(programme_of(40 * per_step))
            for n in range(30 * per_step):
                assert stepwise.is_lagged(n) == (n in lagged), (devices, per_step, lead, device, n)


def doubling(total: int) -> Programme:
    """One micro-batch a step, whose backward is delayed more and more: after 1, 2, 4, 8, ... ."""
    programme: Programme = []
    waiting = 0
    for n in range(total):
        programme.append(Forward(n))
        waiting += 1
        if n & (n + 1) == 0 or n == total - 1:
            for micro_batch in range(n + 1 - waiting, n + 1):
                programme += [Backward(micro_batch), Update(micro_batch)]
            waiting = 0
    return programme


def test_a_schedule_without_a_steady_state_is_followed_too() -> None:
    stepwise = StepwiseProgramme(doubling, 1)
    for steps in (1, 3, 4, 9, 40, 100):
        assert executed(stepwise, steps, 1) == doubling(steps)
    assert [n for n in range(20) if stepwise.is_lagged(n)] == [
        n for n in sorted(lagged_micro_batches(doubling(64))) if n < 20
    ]


def test_a_schedule_whose_shorter_programme_begins_otherwise_is_named_a_defect() -> None:
    def programme_of(total: int) -> Programme:
        """A pair of micro-batches is run backward in the other order if it is the first of one."""
        order = [0, 1] if total > 3 else [1, 0]
        first: Programme = [Forward(0), Forward(1), *map(Backward, order[:total]), Update(0)]
        later = [[Forward(n), Backward(n), Update(n)] for n in range(2, total)]
        return [*first, *itertools.chain.from_iterable(later)]

    stepwise = StepwiseProgramme(programme_of, 1)
    assert executed(stepwise, 9, 1) == programme_of(9)
    with pytest.raises(RuntimeError, match=r"at instruction 2 \(B0\).*defect of the schedule"):
        stepwise.rest(2, 1)
