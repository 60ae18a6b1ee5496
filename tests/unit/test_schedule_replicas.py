"""Schedules of stages that have replicas: a the start of an average, u the update after it."""

import pytest

from hpc_lpm.schedules.clock import PipelineClock
from hpc_lpm.schedules.drawing import draw
from hpc_lpm.schedules.instructions import Backward, Forward, Reduce, Update
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.schedules.simulate import simulate
from hpc_lpm.schedules.validate import ScheduleError, validate
from tests.unit.test_schedule_pictures import picture

SHAPES = [(devices, m, lead) for devices in (1, 2, 4) for m in (1, 2, 3, 8) for lead in (1, 2)]


def drawn(name, stages, micro_batches, steps, **more):
    programmes = SCHEDULES.named(name).programmes(
        stages, micro_batches, steps * micro_batches, replicas=2, **more
    )
    return [line.split() for line in draw(programmes).splitlines()]


def test_fbp_averages_while_the_next_forward_runs():
    assert drawn("fbp", 3, 2, 3) == picture(
        """
        stage 0  F0 F1 F2 .  .  B0  F3  B1a F4u B2  F5  B3au .  B4   .    B5au
        stage 1  .  F0 F1 .  B0 F2  B1a F3u B2  F4  B3a F5u  B4 .    B5au .
        stage 2  .  .  F0 B0 F1 B1a F2u B2  F3  B3a F4u B4   F5 B5au .    .
        """
    )


def test_the_first_micro_batch_after_an_average_is_replayed_even_on_the_last_stage():
    assert drawn("fbp", 2, 2, 2, replay=True) == picture(
        """
        stage 0  F0 F1 .  B0 F2  B1a F3u R2 B2 R3 B3au
        stage 1  .  F0 B0 F1 B1a F2u R2  B2 F3 B3au .
        """
    )


def test_one_stage_with_one_micro_batch_a_step_updates_a_forward_late():
    assert drawn("fbp", 1, 1, 3) == picture("stage 0  F0 B0a F1u B1a F2u B2au")


@pytest.mark.parametrize("name", ["1f1b", "gpipe", "naive"])
def test_flushing_schedules_wait_for_the_average_at_once(name):
    alone = draw(SCHEDULES.named(name).programmes(3, 4, 8)).splitlines()
    assert drawn(name, 3, 4, 2) == [line.replace("u", "au").split() for line in alone]


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize(("devices", "micro_batches", "lead"), SHAPES)
def test_every_schedule_with_replicas_is_sound(name, devices, micro_batches, lead, replay):
    schedule = SCHEDULES.named(name)
    stages = devices * schedule.chunks
    for steps in (1, 2, 5):
        total = micro_batches * steps
        validate(
            schedule.programmes(stages, micro_batches, total, lead, replay=replay, replicas=3),
            micro_batches,
            total,
            schedule.in_flight_bounds(stages, micro_batches, lead),
            schedule.placement(stages),
        )


@pytest.mark.parametrize(("stages", "micro_batches", "lead"), SHAPES)
def test_versions_are_those_of_the_formula_with_one_more_forward(stages, micro_batches, lead):
    schedule, total = SCHEDULES.named("fbp"), 6 * micro_batches
    for stage in range(stages):
        updates, forwards, backwards = 0, {}, {}
        for item in schedule.programme(stage, stages, micro_batches, total, lead, replicas=2):
            match item:
                case Update():
                    updates += 1
                case Forward(n):
                    forwards[n] = updates
                case Backward(n):
                    backwards[n] = updates
        late = lead * (stages - 1 - stage) + 1
        assert schedule.version_delay(stage, stages, micro_batches, lead, replicas=2) == late
        for n in range(total):
            assert forwards[n] == max(n - late, 0) // micro_batches
            assert backwards[n] == n // micro_batches


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_without_replicas_nothing_is_averaged(name):
    schedule = SCHEDULES.named(name)
    for programme in schedule.programmes(3 * schedule.chunks, 2, 8, replicas=1):
        assert not any(isinstance(item, Reduce) for item in programme)


def complaint(change):
    programmes = SCHEDULES.named("fbp").programmes(2, 2, 6, replicas=2)
    change(programmes[1])
    with pytest.raises(ScheduleError) as caught:
        validate(programmes, 2, 6, [2, 1])
    return str(caught.value)


def move(programme, instruction, before):
    programme.remove(instruction)
    programme.insert(programme.index(before), instruction)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda programme: programme.remove(Reduce(1)), "U1 comes before A1"),
        (lambda programme: move(programme, Update(0), Reduce(0)), "U0 comes before A0"),
        (lambda programme: move(programme, Reduce(0), Backward(1)), "1 backwards of the step are"),
        (lambda programme: move(programme, Update(0), Backward(3)), "belongs after 1 updates"),
        (lambda programme: programme.append(Reduce(2)), "A2 comes twice"),
    ],
)
def test_averages_out_of_place_are_found(change, reason):
    assert reason in complaint(change)


def test_an_average_costs_no_time_of_its_own():
    for _, schedule in SCHEDULES.items():
        stages = 3 * schedule.chunks
        clock = PipelineClock([1.0] * stages, [2.0] * stages, [0.0] * (stages - 1))
        one, several = (simulate(schedule, clock, 4, 96, replicas=replicas) for replicas in (1, 2))
        assert several.makespan_seconds == one.makespan_seconds
        assert several.peak_in_flight == one.peak_in_flight
