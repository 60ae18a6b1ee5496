"""The planner's benchmark: who is timed and ended how, what its tables say, and a small run."""

import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from set_clock import OF_READINGS, SetClock

from benchmarks import planner_growth, worker
from benchmarks.planner_chains import TICKS_PER_SECOND
from benchmarks.planner_contestants import (
    OURS,
    RIVALS,
    Contestant,
    prepare,
    slowest_ticks,
)
from benchmarks.planner_rivals import Case, beaten, count_misses, race, report, small_cases
from benchmarks.worker import Worker

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 120.0
CLOCK = SetClock()


def sleep(seconds):
    time.sleep(seconds)
    return "slept"


def slowly_unchanged(value):
    """Take two seconds of a clock by which the process of a worker then goes."""
    worker.time = CLOCK
    CLOCK.sleep(2)
    return value


def let_pass(seconds):
    CLOCK.sleep(seconds)
    return "passed"


def allocate(mebibytes):
    return int(np.ones(mebibytes * 2**20, dtype=np.uint8).sum())


def asleep(problem):
    """Solve tiny problems alone."""
    if len(problem.seconds) > 3:
        time.sleep(60)
    return [0, 1, len(problem.seconds)]


def first_alone(problem):
    """Put everything but one layer into the last stage."""
    return [*range(problem.stages), len(problem.seconds)]


def test_slowest_stage_is_counted_in_whole_ticks():
    assert slowest_ticks([5, 1, 3], [0, 1, 3]) == 5
    assert slowest_ticks([5, 1, 3], [0, 2, 2, 3]) == 6
    with pytest.raises(ValueError, match="not the cuts of 3 layers"):
        slowest_ticks([5, 1, 3], [0, 1, 2])


def test_sums_of_layer_times_are_exact_in_doubles():
    ticks = [2**30 + 1, 3, 10**9 + 7] * 1000
    assert sum(prepare(ticks, 2).seconds) * TICKS_PER_SECOND == sum(ticks)


@pytest.mark.parametrize("contestant", [OURS, *RIVALS], ids=lambda contestant: contestant.name)
def test_contestants_return_the_cuts_of_a_partition(contestant):
    ticks = [4, 1, 7, 2, 2, 9, 3, 5]
    cuts = contestant.solve(prepare(ticks, 3))
    assert len(cuts) == 4
    least = min(slowest_ticks(ticks, (0, *inner, 8)) for inner in combinations(range(1, 8), 2))
    if contestant.name in (OURS.name, "plain dynamic programme"):
        assert slowest_ticks(ticks, cuts) == least
    else:
        assert slowest_ticks(ticks, cuts) < 2 * least


def test_solving_is_timed_and_preparing_is_not():
    with Worker(slowly_unchanged, let_pass, warm_up=(0.0,)) as process:
        timed = process.time(0.1, limit_seconds=LIMIT_SECONDS)
    assert timed.result == "passed"
    assert timed.seconds == pytest.approx(0.1, abs=OF_READINGS)


def test_who_takes_too_long_is_ended():
    with Worker(float, sleep, warm_up=(0.0,)) as process:
        began = time.monotonic()
        assert process.time(600.0, limit_seconds=0.2) is None
        assert time.monotonic() - began < 120


def test_peak_memory_is_that_of_the_call():
    with Worker(int, allocate, warm_up=(1,)) as process:
        large = process.time(200, limit_seconds=LIMIT_SECONDS).peak_bytes
        small = process.time(1, limit_seconds=LIMIT_SECONDS).peak_bytes
    assert 190 * 2**20 < large < 260 * 2**20
    assert small < 60 * 2**20


def test_race_measures_everybody_and_leaves_out_who_took_too_long_before():
    entered = [Case("small", [5, 1, 1, 1], 2, 3.0), Case("small", [1, 1, 1, 5, 1], 3, 3.0)]
    contestants = (OURS, Contestant("asleep", asleep), Contestant("first alone", first_alone))
    rows = race(entered, repeats=2, contestants=contestants)
    by_name = dict(list(rows.groupby("contestant")))
    assert list(by_name["lpm"]["outcome"]) == ["solved", "solved"]
    assert list(by_name["lpm"]["n"]) == [2, 2]
    assert list(by_name["lpm"]["slowest_relative"]) == [1, 1]
    assert list(by_name["lpm"]["seconds_relative"]) == [1, 1]
    assert list(by_name["asleep"]["outcome"]) == ["limit", "not run"]
    assert list(by_name["first alone"]["slowest_relative"]) == [1, 7 / 5]
    assert not beaten(rows, count_misses([], contestants))
    lines = report(rows).splitlines()
    assert "| small | 4 | 2 | asleep |  | > 3 |  | 0 |" in lines
    assert "| small | 5 | 3 | asleep |  | not run |  | 0 |" in lines


def test_misses_are_counted_against_the_best_that_was_found():
    entered = [Case("", [5, 1, 1], 2, LIMIT_SECONDS), Case("", [1, 1, 2], 2, LIMIT_SECONDS)]
    contestants = (OURS, Contestant("first alone", first_alone))
    misses = count_misses(entered, contestants).set_index("contestant")
    assert list(misses["missed"]) == [0, 1]
    assert list(misses["worst_slowest_relative"]) == [1, 1.5]


def test_a_rival_that_finds_a_faster_slowest_stage_is_noticed():
    rows = pd.DataFrame({"contestant": ["lpm", "rival"], "slowest_relative": [1.0, 1.1]})
    misses = pd.DataFrame({"contestant": ["lpm", "rival"], "missed": [0, 3]})
    assert not beaten(rows, misses)
    assert beaten(rows.assign(slowest_relative=[1.1, 1.0]), misses)
    assert beaten(rows, misses.assign(missed=[1, 0]))


def test_small_cases_are_the_same_every_time_and_have_more_layers_than_stages():
    drawn = small_cases(50)
    assert drawn == small_cases(50)
    assert all(2 <= case.stages < len(case.ticks) <= 16 for case in drawn)


def test_growth_is_measured_for_both_kinds_of_transfers():
    rows = planner_growth.measure(((40, 4),), repeats=2)
    assert list(rows["overlap"]) == [True, False]
    assert list(rows["n"]) == [2, 2]
    assert (rows["seconds"] > 0).all()
    assert len(planner_growth.report(rows).splitlines()) == 4


def test_growth_tells_who_took_too_long():
    rows = planner_growth.measure(((2000, 8),), repeats=2, limit_seconds=0.001)
    assert list(rows["n"]) == [0, 0]
    assert "> 0.001" in planner_growth.report(rows)


def test_small_benchmark_writes_tables_and_figure(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "benchmarks.planner", "--small", "--out", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"planner.md", "planner.svg", "growth.csv", "rivals.csv", "misses.csv"}
    text = (tmp_path / "planner.md").read_text()
    assert "DeepSpeed partition_balanced" in text
    assert "torchgpipe blockpartition" in text
