"""What the recorder says is what happened."""

import time

import pytest
import torch

from hpc_lpm.engine.recorder import Recorder

Reported = list[tuple[int, float | None, float, bool]]


def recorder(trace_steps: int = 100) -> tuple[Recorder, Reported]:
    reported: Reported = []
    return Recorder(trace_steps, lambda *values: reported.append(values)), reported


def test_busy_time_counts_computing_and_nothing_else() -> None:
    made, _ = recorder()
    made.begin_segment()
    for kind in ("forward", "receive", "backward", "send", "update"):
        start = made.start()
        time.sleep(0.02)
        made.add(kind, 0, start)
    made.end_segment()
    assert made.segments[0].busy_seconds == pytest.approx(0.06, abs=0.02)
    assert made.segments[0].end_seconds == pytest.approx(0.1, abs=0.03)
    assert [i.kind for i in made.segments[0].intervals] == [
        "forward",
        "receive",
        "backward",
        "send",
        "update",
    ]


def test_every_step_is_reported_once_with_the_mean_of_its_own_losses() -> None:
    made, reported = recorder()
    for epoch in range(2):
        made.begin_segment()
        for step in range(3):
            for value in (1.0, 3.0):
                made.add_loss(torch.tensor(value + 10 * step + 100 * epoch), 4)
            made.end_step()
        made.end_segment()
    assert [(step, loss) for step, loss, *_ in reported] == [
        (0, 2.0),
        (1, 12.0),
        (2, 22.0),
        (3, 102.0),
        (4, 112.0),
        (5, 122.0),
    ]
    assert made.segments[0].step_losses == [2.0, 12.0, 22.0]


def test_the_loss_of_a_step_is_the_mean_over_its_samples() -> None:
    made, reported = recorder()
    made.begin_segment()
    made.add_loss(torch.tensor(1.0), 3)
    made.add_loss(torch.tensor(5.0), 1)
    made.end_step()
    made.end_segment()
    assert [loss for _, loss, *_ in reported] == [2.0]


def test_a_rank_without_losses_reports_steps_without_them() -> None:
    made, reported = recorder()
    made.begin_segment()
    made.end_step()
    made.end_segment()
    assert [(step, loss) for step, loss, *_ in reported] == [(0, None)]
    assert (made.segments[0].step_losses, made.segments[0].step_samples) == ([0.0], [0])


def test_the_trace_holds_the_first_steps_of_the_last_epoch() -> None:
    made, _ = recorder(trace_steps=2)
    for _ in range(2):
        made.begin_segment()
        for step in range(4):
            made.add("forward", step, made.start())
            made.end_step()
        made.end_segment()
    assert made.segments[0].intervals == []
    assert [interval.micro_batch for interval in made.segments[1].intervals] == [0, 1]
