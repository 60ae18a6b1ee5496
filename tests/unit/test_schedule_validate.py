"""The validator accepts every schedule and finds every kind of fault, with a picture."""

import pytest

from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    Forward,
    ReceiveActivation,
    ReceiveGradient,
    SendActivation,
    SendGradient,
    Update,
)
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.schedules.validate import ScheduleError, validate

BOUNDS = [3, 2, 1]


@pytest.fixture
def programmes():
    """FBP on three stages, two micro-batches a step, three steps."""
    return SCHEDULES.named("fbp").programmes(3, 2, 6)


def move(programme, instruction, before):
    """Move an instruction to right before another one."""
    programme.remove(instruction)
    programme.insert(programme.index(before), instruction)


def complaint(programmes, bounds=BOUNDS):
    with pytest.raises(ScheduleError) as caught:
        validate(programmes, 2, 6, bounds)
    return str(caught.value)


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("lead", [1, 2, 3])
def test_every_schedule_is_sound(name, devices, lead):
    schedule = SCHEDULES.named(name)
    stages = devices * schedule.chunks
    for micro_batches in (1, 2, 3, 4, 7, 16):
        for steps in (1, 2, 5):
            total = micro_batches * steps
            validate(
                schedule.programmes(stages, micro_batches, total, lead),
                micro_batches,
                total,
                schedule.in_flight_bounds(stages, micro_batches, lead),
                schedule.placement(stages),
            )


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("total", [1, 5, 6, 11])
def test_every_schedule_is_sound_where_the_last_step_is_shorter(name, total):
    schedule = SCHEDULES.named(name)
    stages = 3 * schedule.chunks
    for lead in (1, 2):
        programmes = schedule.programmes(stages, 4, total, lead)
        bounds = schedule.in_flight_bounds(stages, 4, lead)
        validate(programmes, 4, total, bounds, schedule.placement(stages))
        assert programmes[0][-1] == Update((total - 1) // 4)


def test_bad_step_is_marked_in_the_whole_picture(programmes):
    move(programmes[1], Backward(1), before=ReceiveGradient(1))
    lines = complaint(programmes).splitlines()
    assert lines[0].startswith("stage 1, instruction ")
    assert "(B1): B1 comes before RG1" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:]] == ["stage 0", "stage 1", "stage 2"]
    assert "B1 <-[B1]" in lines[2]
    assert not any("<-" in lines[stage] for stage in (1, 3))


def test_deadlock_names_all_who_wait(programmes):
    # Stage 0 asks for the first gradient before it has sent what that gradient needs.
    first = programmes[0]
    first[:] = [Forward(0), *[item for item in first if item != Forward(0)]]
    move(first, ReceiveGradient(0), before=SendActivation(0))
    message = complaint(programmes)
    assert "deadlock: RG0 waits for ever" in message
    assert "stage 1 at RA0, stage 2 at RA0" in message
    assert "<-[RG0]" in message.splitlines()[1]


def test_receiving_in_another_order_than_sent_is_a_deadlock(programmes):
    # The sender swaps two messages whose receiver takes them in the right order.
    sender = programmes[0]
    move(sender, SendActivation(1), before=ReceiveGradient(0))
    move(sender, SendActivation(0), before=ReceiveGradient(0))
    assert "deadlock: RG0" in complaint(programmes)


def test_micro_batch_passes_exactly_once(programmes):
    programmes[2].insert(-1, Forward(5))
    assert "F5 comes twice" in complaint(programmes)


def test_a_backward_and_a_half_of_it_is_what_is_named_and_no_message_between_them(programmes):
    for again, reason in (
        (BackwardInput(1), "I1 comes after the whole of it"),
        (Backward(1), "B1 comes twice"),
    ):
        changed = [list(each) for each in programmes]
        at = changed[1].index(Backward(1))
        changed[1][at + 1 : at + 1] = [ReceiveGradient(1), again]
        said = complaint(changed).splitlines()[0]
        assert reason in said
        assert "RG1" not in said


def test_a_message_that_is_received_twice_is_named(programmes):
    programmes[1].insert(programmes[1].index(Backward(1)), ReceiveGradient(1))
    assert "RG1 comes twice" in complaint(programmes)


@pytest.mark.parametrize(
    ("stage", "instruction", "reason"),
    [
        (0, Update(2), "U2 is missing"),
        (0, SendActivation(5), "SA5 is missing"),
        (2, SendGradient(5), "SG5 is missing"),
        (2, ReceiveActivation(3), "F3 comes before RA3"),
        (2, Forward(3), "B3 comes before F3"),
    ],
)
def test_missing_instruction_is_found(programmes, stage, instruction, reason):
    programmes[stage].remove(instruction)
    assert reason in complaint(programmes)


def test_micro_batch_left_out_is_found():
    programmes = SCHEDULES.named("fbp").programmes(1, 2, 6)
    programmes[0].remove(Forward(4))
    programmes[0].remove(Backward(4))
    assert "1 backwards of the step are still to come" in complaint(programmes, [1])


def test_micro_batch_beyond_the_last_is_found(programmes):
    programmes[0].insert(0, Forward(6))
    assert "there are 6 micro-batches" in complaint(programmes)


def test_exceeded_memory_bound_is_found(programmes):
    assert "3 micro-batches in flight, allowed are 2" in complaint(programmes, [2, 2, 1])


def test_late_update_is_found(programmes):
    move(programmes[2], Update(0), before=Update(1))
    assert "belongs after 1 updates, 0 are done" in complaint(programmes)


def test_early_update_is_found(programmes):
    move(programmes[2], Update(1), before=Backward(2))
    assert "2 backwards of the step are still to come" in complaint(programmes)


def test_message_to_a_stage_that_does_not_exist_is_found():
    programmes = SCHEDULES.named("naive").programmes(2, 2, 6)
    programmes[0].append(SendGradient(5))
    assert "deadlock: SG5" in complaint(programmes, [1, 1])


def test_message_that_nobody_receives_is_found(programmes):
    programmes[0].remove(ReceiveGradient(5))
    assert "B5 comes before RG5" in complaint(programmes)
