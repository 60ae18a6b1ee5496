"""Whom all wait for, from what every rank has written down."""

import os
import time
from pathlib import Path

import pytest

from hpc_lpm.engine.watchdog import FOLDER, Watchdog, _blame


def told(**by_rank: int | str | None) -> dict[int, dict[str, object]]:
    """Return reports of ranks that wait for a rank, for all (None), or are busy (a text)."""
    return {
        int(name.removeprefix("r")): {
            "rank": int(name.removeprefix("r")),
            "host": "n1",
            "process": 7,
            "waiting": not isinstance(target, str),
            "waits_for": target if isinstance(target, int) else None,
            "doing": target,
        }
        for name, target in by_rank.items()
    }


@pytest.mark.parametrize(
    ("found", "ranks", "sentence"),
    [
        (told(r0=1, r1=2, r2=3), 4, "all wait for rank 3, which gives no answer"),
        (told(r0=1, r1=2, r2="busy"), 3, "all wait for rank 2 on n1, process 7, .*: busy"),
        (told(r0=None, r1=None, r3=None), 4, "all wait for rank 2, which gives no answer"),
        (told(r0=1, r1=None, r2="busy"), 3, "all wait for rank 2 on n1"),
        (told(r0=1, r1=2, r2=1), 3, "ranks 1, 2 wait for each other in a circle"),
        (told(r0=None, r1=None), 2, "all ranks wait, none is busy"),
    ],
)
def test_waits_are_followed_to_the_rank_that_does_not_wait(
    found: dict[int, dict[str, object]], ranks: int, sentence: str
) -> None:
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(_blame(found, 0, ranks))


def test_a_rank_answers_again_after_the_clock_was_set_back(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    watchdog = Watchdog(tmp_path, 0, 2, 2.0, lambda: "busy")
    try:
        for asked in (2_000_000_000, 1_000_000_000):
            (folder / "asked").touch()
            os.utime(folder / "asked", (asked, asked))
            report, deadline = folder / "rank-0.json", time.monotonic() + 10
            while not report.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            # It is asked before it is dated, so that it may answer twice.
            time.sleep(0.2)
            report.unlink()
    finally:
        watchdog.close()
