"""Simulated times against closed forms. Times are small integers, so floats are exact."""

from itertools import pairwise

import pytest

from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.clock import PipelineClock
from hpc_lpm.schedules.drawing import draw_timelines
from hpc_lpm.schedules.instructions import Backward, Forward
from hpc_lpm.schedules.playback import play
from hpc_lpm.schedules.registry import SCHEDULES
from hpc_lpm.schedules.simulate import simulate


def equal_stages(stages, forward=1.0, backward=2.0, transfer=0.0, **more):
    return PipelineClock([forward] * stages, [backward] * stages, [transfer] * (stages - 1), **more)


def run(name, clock, micro_batches, steps=24, lead=1, replay=False):
    total = micro_batches * steps
    return simulate(SCHEDULES.named(name), clock, micro_batches, total, lead, replay=replay)


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize("stages", [1, 2, 4, 7])
@pytest.mark.parametrize("micro_batches", [1, 3, 8])
def test_flushing_schedules_idle_for_k_minus_1_of_m_plus_k_minus_1(name, stages, micro_batches):
    result = run(name, equal_stages(stages), micro_batches)
    slots = micro_batches + stages - 1
    assert result.period_seconds == pytest.approx(3 * slots / micro_batches)
    assert result.idle_share == pytest.approx([(stages - 1) / slots] * stages)
    assert result.makespan_seconds == 24 * 3 * slots


def test_naive_keeps_all_but_one_stage_idle():
    result = run("naive", equal_stages(5), 4)
    assert result.period_seconds == 15
    assert result.idle_share == pytest.approx([0.8] * 5)
    assert result.peak_in_flight == [1] * 5


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
@pytest.mark.parametrize("micro_batches", [1, 3, 8])
def test_fbp_never_idles_in_steady_state(stages, micro_batches):
    result = run("fbp", equal_stages(stages), micro_batches, steps=60)
    assert result.period_seconds == 3
    assert result.idle_share == [0] * stages
    # Filling and emptying the pipeline once is all that is lost over the whole run.
    assert result.makespan_seconds == 3 * (60 * micro_batches + stages - 1)
    assert result.peak_in_flight == list(range(stages, 0, -1))


def test_fbp_runs_at_the_speed_of_its_slowest_stage():
    clock = PipelineClock([1.0, 2.0, 1.0], [2.0, 5.0, 1.0], [0.0, 0.0])
    result = run("fbp", clock, 4)
    assert result.period_seconds == 7
    assert result.idle_share == pytest.approx([1 - 3 / 7, 0, 1 - 2 / 7])


@pytest.mark.parametrize("lead", [1, 2, 3])
def test_latency_is_hidden_once_the_lead_covers_the_round_trip(lead):
    # A micro-batch returns to stage 0 after 3 K + 2 c (K - 1) seconds and up to 1 + lead (K - 1)
    # of them are under way, so c = 1.5 (half of a period) needs a lead of 2.
    stages, transfer = 5, 1.5
    result = run("fbp", equal_stages(stages, transfer=transfer), 4, steps=60, lead=lead)
    round_trip = 3 * stages + 2 * transfer * (stages - 1)
    assert result.period_seconds == pytest.approx(
        max(3.0, round_trip / (1 + lead * (stages - 1))), rel=0.02
    )
    assert (result.idle_share[0] < 1e-9) == (lead >= 2)


def test_slow_link_bounds_the_period_even_where_transfers_overlap():
    result = run("fbp", equal_stages(2, transfer=10.0), 4, steps=60, lead=8)
    assert result.period_seconds == 10


def test_transfers_that_do_not_overlap_are_paid_by_both_ends():
    # The middle stage receives and sends an activation and a gradient: 3 + 4 transfers.
    result = run("fbp", equal_stages(3, transfer=1.0, overlap=False), 4, steps=60, lead=4)
    assert result.period_seconds == 7
    assert result.idle_share == pytest.approx([1 - 5 / 7, 0, 1 - 5 / 7])


def test_replay_costs_the_forward_of_every_lagged_micro_batch():
    # Stage 0 of two lags for one micro-batch in four; it alone is heavy enough to bound the period.
    clock = PipelineClock([8.0, 1.0], [16.0, 1.0], [0.0])
    assert run("fbp", clock, 4, replay=True).period_seconds == 24 + 8 / 4


def test_a_replay_runs_while_the_gradient_is_on_its_way():
    # Stage 0 waits 1 s a micro-batch for stage 1, so of a replay of 2 s but 1 s shows. Had it
    # waited for the gradient first, the replay would cost 1 s a step.
    clock = PipelineClock([2.0, 2.5], [2.0, 2.5], [0.0])
    replayed = run("fbp", clock, 4, replay=True)
    assert replayed.period_seconds == run("fbp", clock, 4).period_seconds == 5


@pytest.mark.parametrize(
    ("name", "step"),
    # FBP: three micro-batches of 3 s, and of the average what outlasts the forward of 1 s that runs
    # meanwhile. With a flush nothing runs meanwhile.
    [("fbp", 9 + 4), ("1f1b", 9 + 5)],
)
def test_an_update_waits_for_the_average_over_replicas(name, step):
    clock = PipelineClock([1.0], [2.0], [], averaging_seconds=[5.0])
    result = simulate(SCHEDULES.named(name), clock, 3, 60, replicas=2)
    assert result.period_seconds == step / 3
    assert result.idle_share == pytest.approx([1 - 9 / step])


def test_fewer_steps_than_a_steady_state_needs_are_taken_as_a_whole():
    result = run("fbp", equal_stages(3), 2, steps=1)
    assert result.makespan_seconds == 3 * (2 + 3 - 1)
    assert result.period_seconds == result.makespan_seconds / 2


def played(clock, micro_batches, steps):
    programmes = SCHEDULES.named("fbp").programmes(
        len(clock.forward_seconds), micro_batches, micro_batches * steps
    )
    return play(programmes, clock)


def test_stage_intervals_do_not_overlap_and_end_with_the_makespan():
    clock = equal_stages(4, transfer=0.5, overlap=False)
    playback = played(clock, 3, steps=24)
    for line in playback.timelines:
        for earlier, later in pairwise(line):
            assert earlier.end_seconds <= later.start_seconds
    assert playback.makespan_seconds == run("fbp", clock, 3).makespan_seconds


def test_timeline_is_drawn_to_scale():
    lines = [
        [timed for timed in line if timed.end_seconds > timed.start_seconds]
        for line in played(equal_stages(2), 1, steps=3).timelines
    ]
    assert draw_timelines(lines, 12.0, 12) == ["01..aa2bb.cc", ".0aa1bb2cc.."]


class Stuck(Schedule):
    """Every stage but the last goes back before it has gone forward."""

    name, description, flushes = "stuck", "waits for ever", False

    def ahead(self, stage, stages, micro_batches_per_step, lead):
        return 0

    def compute(self, stage, stages, micro_batches_per_step, total_micro_batches, lead):
        passes = [Forward(0), Backward(0)]
        yield from passes if stage == stages - 1 else reversed(passes)


def test_deadlock_is_refused():
    with pytest.raises(ValueError, match="deadlock"):
        simulate(Stuck(), equal_stages(2), 1, 1)
