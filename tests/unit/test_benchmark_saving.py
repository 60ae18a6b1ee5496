"""The row of the benchmark of saving: what a checkpoint costs, from pairs of runs."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.saving import row_of


def result(training_seconds: float, *, saves: bool, weights: str = "a") -> Any:
    return SimpleNamespace(
        weights_sha256=weights,
        drains=[10, 20],
        drain_seconds=0.5,
        step_seconds=[1.0, 2.0, 4.0],
        training_seconds=training_seconds,
        checkpoints_saved=2 if saves else 0,
        saving_copy_seconds=[0.2, 0.4] if saves else [0.0, 0.0],
        saving_wait_seconds=[0.6, 0.0] if saves else [0.0, 0.0],
        saving_behind_seconds=[3.0, 5.0] if saves else [0.0, 0.0],
    )


def test_a_checkpoint_costs_what_its_run_took_longer_on_the_slowest_rank() -> None:
    calm = [result(seconds, saves=False) for seconds in (20.0, 30.0, 40.0)]
    # 1, 2 and 6 seconds longer in the steps, and 1 second of standing still in each.
    saving = [result(seconds, saves=True) for seconds in (21.0, 32.0, 46.0)]
    row = row_of("m", 7, saving, calm)
    assert (row.pairs, row.checkpoints, row.checkpoint_bytes) == (3, 2, 7)
    assert (row.step_seconds, row.drain_seconds) == (2.0, 0.25)
    assert (row.copy_seconds, row.wait_seconds, row.behind_seconds) == (0.2, 0.3, 2.5)
    assert row.slower_seconds == pytest.approx(1.5)
    assert (row.slower_seconds_from, row.slower_seconds_to) == (1.0, 3.5)
    assert row.percent_of_a_minute == pytest.approx(2.5)
    with pytest.raises(ValueError, match="has computed something else"):
        row_of("m", 7, saving, [*calm[:2], result(40.0, saves=False, weights="b")])
