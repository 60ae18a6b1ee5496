"""Owners and copies of tied weights exchange what is due, and nobody waits for it."""

import pytest

from hpc_lpm.schedules.clock import PipelineClock
from hpc_lpm.schedules.instructions import (
    Backward,
    Forward,
    ReceiveTiedWeights,
    Reduce,
    Replay,
    SendTiedGradient,
    SendTiedWeights,
    Update,
)
from hpc_lpm.schedules.playback import play
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.schedules.validate import ScheduleError, validate


def shown(programme) -> str:
    drawn = (Forward, Backward, Replay, Update)
    return " ".join(
        str(i) for i in programme if isinstance(i, drawn) or str(i).startswith(("ST", "RT"))
    )


def test_the_copy_takes_over_an_update_with_the_first_micro_batch_that_has_seen_it():
    owner, copy = SCHEDULES.named("fbp").programmes(2, 2, 6, ties=[(0, 1)])
    assert shown(owner) == (
        "F0 F1 B0 F2 B1 RTG0 U0 STW0 F3 B2 F4 B3 RTG1 U1 STW1 F5 B4 B5 RTG2 U2 STW2"
    )
    assert shown(copy) == (
        "F0 B0 F1 B1 STG0 U0 F2 B2 RTW0 F3 B3 STG1 U1 F4 B4 RTW1 F5 B5 STG2 U2 RTW2"
    )


def test_with_a_flush_the_copy_is_up_to_date_before_the_next_step():
    _, copy = SCHEDULES.named("1f1b").programmes(2, 2, 4, ties=[(0, 1)])
    assert shown(copy) == "F0 B0 F1 B1 STG0 U0 RTW0 F2 B2 F3 B3 STG1 U1 RTW1"


def test_weights_that_change_between_two_passes_are_replayed():
    # A copy in the middle: micro-batches are in flight when the owner's update arrives.
    programme = SCHEDULES.named("fbp").programme(1, 4, 4, 16, replay=True, ties=[(0, 1)])
    received = programme.index(ReceiveTiedWeights(0, 0))
    behind = {i.micro_batch for i in programme[:received] if isinstance(i, Forward)}
    behind -= {i.micro_batch for i in programme[:received] if isinstance(i, Backward)}
    assert behind
    assert behind <= {i.micro_batch for i in programme if isinstance(i, Replay)}


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("ties", [[(0, 3)], [(0, 1), (0, 3), (1, 2)]])
@pytest.mark.parametrize(("micro_batches", "total"), [(1, 9), (3, 12), (4, 15), (8, 16)])
def test_no_schedule_deadlocks_over_tied_weights(name, ties, micro_batches, total):
    for lead in (1, 2):
        schedule = SCHEDULES.named(name)
        stages = 4 * schedule.chunks
        programmes = schedule.programmes(stages, micro_batches, total, lead, ties=ties)
        bounds = schedule.in_flight_bounds(stages, micro_batches, lead)
        validate(programmes, micro_batches, total, bounds, schedule.placement(stages))


def test_a_message_that_never_comes_is_a_deadlock():
    programmes = SCHEDULES.named("fbp").programmes(2, 2, 6, ties=[(0, 1)])
    programmes[1].remove(SendTiedGradient(1, 0))
    with pytest.raises(ScheduleError, match="deadlock: RTG1"):
        validate(programmes, 2, 6, [2, 1])


@pytest.mark.parametrize("lead", [1, 2])
def test_tied_weights_cost_fbp_no_time(lead):
    stages, micro_batches, total = 4, 3, 60
    clock = PipelineClock([1.0] * stages, [2.0] * stages, [0.0] * (stages - 1))
    fbp = SCHEDULES.named("fbp")
    apart = play(fbp.programmes(stages, micro_batches, total, lead), clock)
    tied = play(fbp.programmes(stages, micro_batches, total, lead, ties=[(0, 3)]), clock)
    assert any(
        isinstance(i, SendTiedWeights)
        for i in fbp.programme(0, stages, micro_batches, total, lead, ties=[(0, 3)])
    )
    assert tied.makespan_seconds == apart.makespan_seconds


def test_gradients_of_copies_are_there_before_the_average_over_replicas_begins():
    owner, copy = SCHEDULES.named("fbp").programmes(2, 2, 6, replicas=2, ties=[(0, 1)])
    drawn = (Forward, Backward, Reduce, Update)
    owner, copy = (
        " ".join(str(i) for i in p if isinstance(i, drawn) or str(i).startswith(("ST", "RT")))
        for p in (owner, copy)
    )
    assert owner.startswith("F0 F1 B0 F2 B1 RTG0 A0 F3 U0 STW0 B2 F4")
    assert copy.startswith("F0 B0 F1 B1 STG0 A0 F2 U0 B2 F3 B3")
    # Micro-batch 4 is the first whose forward at the owner has seen the first update.
    assert "B3 STG1 A1 RTW0 F4 U1 B4" in copy
