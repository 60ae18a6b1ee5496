from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.comparison.change import Change
from hpc_lpm.campaign.comparison.trials import trial_changes
from hpc_lpm.campaign.results import load_results
from hpc_lpm.campaign.runs import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    chosen = campaign(strategies=["fbp"], repeats=1)
    folder = write_folder(tmp_path_factory.mktemp("c") / "c", chosen)
    return load_results(folder.root).runs[0]


def changed(run: Run, **fields: Any) -> Run:
    return Run(run.trial, run.folder, run.result.model_copy(update=fields))


def compared(first: Run, second: Run, metric: str) -> Change:
    (entry,) = trial_changes([first], [second])
    (change,) = (change for change in entry.changes if change.metric == metric)
    return change


def steps(seed: int, mean_seconds: float, count: int = 100) -> list[float]:
    noise = np.random.default_rng(seed).normal(1, 0.05, count)
    return [100.0, 100.0, *(mean_seconds * noise).tolist()]


def speed(run: Run, seed: int, mean_seconds: float, count: int = 100) -> Run:
    return changed(
        run,
        step_seconds=steps(seed, mean_seconds, count),
        samples_per_second=64 / mean_seconds,
        settings={"discard_steps": 2},
    )


def test_runs_differ_in_speed_if_by_more_than_their_steps_fluctuate(run: Run) -> None:
    change = compared(speed(run, 0, 0.10), speed(run, 1, 0.09), "samples_per_second")
    assert change.ratio == pytest.approx(10 / 9)
    assert change.low is not None
    assert change.high is not None
    # 5 % over the root of 100 steps, for two runs: 0.7 %, and about twice that to either side.
    assert change.low == pytest.approx(10 / 9 * 0.985, abs=0.012)
    assert change.high == pytest.approx(10 / 9 * 1.015, abs=0.012)
    assert change.verdict == "better"


def test_equal_speeds_are_inconclusive(run: Run) -> None:
    change = compared(speed(run, 0, 0.1), speed(run, 1, 0.1), "samples_per_second")
    assert change.verdict == "inconclusive"


def test_steps_that_are_not_counted_widen_nothing(run: Run) -> None:
    counted = speed(run, 0, 0.1, count=102)  # with the two before, a multiple of 8 batches
    everything = changed(counted, settings={"discard_steps": 0})
    narrow, wide = (compared(first, first, "samples_per_second") for first in (counted, everything))
    assert narrow.high is not None
    assert wide.high is not None
    assert narrow.high < 1.05 < wide.high


def test_a_short_run_has_no_interval_of_its_speed(run: Run) -> None:
    short = speed(run, 0, 0.1, count=19)
    change = compared(short, short, "samples_per_second")
    assert (change.low, change.note) == (None, "too few steps")


def test_an_accuracy_of_few_samples_says_little(run: Run) -> None:
    fields = {"test_accuracy": [0.1, 0.60]}, {"test_accuracy": [0.9, 0.80]}
    few, many = (
        compared(
            changed(run, **fields[0], test_predictions=count),
            changed(run, **fields[1], test_predictions=count),
            "test_accuracy",
        )
        for count in (20, 2000)
    )
    assert few.difference_points == pytest.approx(20.0)
    assert (few.verdict, many.verdict) == ("inconclusive", "better")


def test_without_the_number_of_predictions_accuracy_has_no_interval(run: Run) -> None:
    change = compared(run, changed(run, test_predictions=None), "test_accuracy")
    assert (change.low, change.note) == (None, "test samples unknown")


def test_a_run_that_was_not_evaluated_has_no_change_of_accuracy(run: Run) -> None:
    (entry,) = trial_changes([run], [changed(run, test_accuracy=[])])
    metrics = [change.metric for change in entry.changes]
    assert metrics == ["samples_per_second", "peak_memory_bytes"]


def test_one_measurement_of_memory_is_inconclusive(run: Run) -> None:
    half = changed(run, peak_memory_bytes=[b // 2 for b in run.result.peak_memory_bytes])
    change = compared(run, half, "peak_memory_bytes")
    assert (change.ratio, change.low, change.verdict) == (0.5, None, "inconclusive")
    none = changed(run, peak_memory_bytes=[0, 0])
    assert compared(none, run, "peak_memory_bytes").value is None


def test_trials_are_matched_by_name_and_by_their_weights(tmp_path: Path) -> None:
    a, b = (
        load_results(write_folder(tmp_path / name, campaign(repeats=repeats)).root).runs
        for name, repeats in (("a", 1), ("b", 2))
    )
    b[0] = changed(b[0], weights_sha256="other", cuts=[0, 1, 4])
    b[1] = changed(b[1], environment={"cores": 4})
    entries = trial_changes(a, b)
    assert [entry.trial.name for entry in entries] == [run.trial.name for run in a]
    assert [(e.same_weights, e.same_cuts, e.same_environment) for e in entries] == [
        (False, False, True),
        (True, True, False),
        *[(True, True, True)] * 2,
    ]
