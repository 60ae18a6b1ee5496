"""What the recorder says is what happened."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.records import StepNorms
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.times import traced_intervals
from hpc_lpm.engine.training import Training

Reported = list[tuple[int, float | None, float, bool]]


def recorder(trace_steps: int = 100) -> tuple[Recorder, Reported]:
    reported: Reported = []
    return Recorder(trace_steps, lambda *values: reported.append(values)), reported


class SetClock:
    """A timer by which time passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        return self.now

    def seconds(self, start: object, stop: object) -> float:
        assert isinstance(start, float) and isinstance(stop, float)
        return stop - start


def test_busy_time_counts_computing_and_nothing_else() -> None:
    clock = SetClock()
    made = Recorder(100, lambda *values: None, clock)
    made.begin_segment()
    durations = {"forward": 1.0, "receive": 2.0, "backward": 4.0, "send": 8.0, "update": 16.0}
    for kind, seconds in durations.items():
        start = made.start()
        clock.now += seconds
        made.add(kind, 0, start)
    clock.now += 32.0
    made.end_segment()
    assert made.segments[0].busy_seconds == 1.0 + 4.0 + 16.0
    assert made.segments[0].end_seconds == 63.0
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


def test_the_trace_may_begin_at_any_step_of_the_run_and_go_on_over_segments() -> None:
    made = Recorder(3, lambda *values: None, trace_from=2)
    for segment in range(3):
        made.begin_segment()
        for step in range(3):
            made.add("forward", 3 * segment + step, made.start())
            made.end_step()
        made.end_segment()
    ends = [segment.end_seconds for segment in made.segments]
    (row,) = traced_intervals([(segment,) for segment in made.segments])
    assert [interval.micro_batch for interval in row] == [2, 3, 4]
    assert row[1].start_seconds - ends[0] == pytest.approx(
        made.segments[1].intervals[0].start_seconds
    )
    assert row[0].start_seconds < ends[0] < row[1].start_seconds < row[2].start_seconds


def test_norms_are_kept_until_they_are_taken_and_skipped_updates_are_told() -> None:
    made, reported = recorder()
    made.begin_segment()
    for step in range(2):
        made.add_norms(torch.tensor(1.0 + step), torch.tensor(2.0))
        made.add_loss(torch.tensor(1.0), 1)
        if step == 1:
            made.skip_update()
        made.end_step()
    made.end_segment()
    assert made.take_norms() == [StepNorms(0, 1.0, 2.0), StepNorms(1, 2.0, 2.0)]
    assert made.take_norms() == []
    assert [skipped for *_, skipped in reported] == [False, True]
    assert made.skipped_updates == 1


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


def test_a_run_writes_the_trace_of_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    run = {"model": "mlp,width=8", "dataset": "digits,size=8", "batch_size": 8, "micro_batches": 2}
    shown = {"steps": 8, "drain_at": [3, 6], "trace_from": 2, "trace_steps": 3}
    Training(checked_settings(**run, **shown), SingleProcess()).run(tmp_path, None)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    kinds = Counter(event["name"] for event in events)
    assert (kinds["update"], kinds["forward"]) == (3, 6)
    starts = [event["ts"] for event in events if "ts" in event]
    assert starts == sorted(starts)
