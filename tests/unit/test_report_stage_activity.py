import json
from pathlib import Path

import pytest
from campaign_folders import event

from hpc_lpm.campaign.figures.stage_activity import (
    Phase,
    clip,
    idle_share,
    read_trace,
    steady_window,
)


def update(rank: int, start: float) -> Phase:
    return Phase("update", rank, start, start + 0.5, None)


def test_a_trace_is_read_in_seconds_and_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    name = {"name": "thread_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": "rank 0"}}
    events = [event("backward", 1, 3e6, 1e6, 7), name, event("forward", 0, 1e6, 2e6, 7)]
    path.write_text(json.dumps({"traceEvents": events}))
    assert read_trace(path) == [
        Phase("forward", 0, 1.0, 3.0, 7),
        Phase("backward", 1, 3.0, 4.0, 7),
    ]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"traceEvents": [{"ph": "X"}]}'])
def test_a_broken_trace_is_no_trace(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)
    assert read_trace(path) == []


def test_the_window_is_three_steps_in_the_middle() -> None:
    phases = [update(rank, 10.0 * step) for step in range(8) for rank in (0, 1)]
    start, stop = steady_window(phases)
    assert stop - start == pytest.approx(30.0)
    assert start == 20.5


def test_a_short_trace_is_shown_whole() -> None:
    phases = [Phase("forward", 0, 0.0, 1.0, 0), update(0, 1.0)]
    assert steady_window(phases) == (0.0, 1.5)
    assert steady_window([]) == (0.0, 0.0)


def test_phases_are_cut_at_the_edges_and_waiting_is_left_out() -> None:
    phases = [
        Phase("forward", 0, 0.0, 2.0, 0),
        Phase("receive", 0, 2.0, 3.0, 1),
        Phase("backward", 0, 3.0, 9.0, 0),
        Phase("forward", 0, 9.0, 10.0, 1),
    ]
    assert clip(phases, 1.0, 5.0) == [
        Phase("forward", 0, 1.0, 2.0, 0),
        Phase("backward", 0, 3.0, 5.0, 0),
    ]


def test_idle_is_the_time_that_no_phase_covers_once() -> None:
    phases = [
        Phase("forward", 0, 0.0, 4.0, 0),
        Phase("replay", 0, 2.0, 5.0, 0),
        Phase("forward", 1, 0.0, 10.0, 0),
        Phase("update", 0, 8.0, 9.0, None),
    ]
    assert idle_share(phases, 0, 0.0, 10.0) == pytest.approx(0.4)
    assert idle_share(phases, 1, 0.0, 10.0) == pytest.approx(0.0)
