"""Whom all wait for, from what every rank has written down."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from hpc_lpm.engine.waits import WAITS
from hpc_lpm.engine.watchdog import FOLDER, Watchdog, _blame, _waits

LONG_SECONDS = 120.0
"""Longer than anything takes that is waited for here."""


@pytest.fixture(autouse=True)
def nothing_is_waited_for() -> Iterator[None]:
    """A wait that has ended with an error stays, and other tests of this process have some."""
    WAITS.end()
    yield
    WAITS.end()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
            # It appears with its date, so that it is answered once.
            (folder / "asking").touch()
            os.utime(folder / "asking", (asked, asked))
            (folder / "asking").rename(folder / "asked")
            until((folder / "rank-0.json").exists)
            (folder / "rank-0.json").unlink()
    finally:
        watchdog.close()


def test_where_no_answer_can_be_written_nobody_is_blamed(tmp_path: Path) -> None:
    (tmp_path / "run").touch()  # a run's folder that is gone
    watchdog = Watchdog(tmp_path / "run", 0, 2, 1.0, lambda: "its last instruction was a test")
    try:
        WAITS.begin(time.perf_counter(), None)
        until(lambda: watchdog._reported is not None)
        assert watchdog.blame() is None
    finally:
        WAITS.end()
        watchdog.close()


def test_an_answer_to_an_earlier_question_is_none(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    # A rank that was busy when it was asked before, and has been stopped since.
    report = {**told(r1="busy")[1], "written": "then", "waited_seconds": 0.0, "stack": []}
    (folder / "rank-1.json").write_text(json.dumps(report))
    watchdog = Watchdog(tmp_path, 0, 2, 1.0, lambda: "its last instruction was a test")
    try:
        WAITS.begin(time.perf_counter(), None)
        until((folder / "asked").exists)
        assert "all wait for rank 1, which gives no answer" in str(watchdog.blame())
        # What it says now counts.
        (folder / "rank-1.json").write_text(json.dumps(report))
        assert "all wait for rank 1 on n1, process 7, which does not wait" in str(watchdog.blame())
    finally:
        WAITS.end()
        watchdog.close()


def called_from(module: str) -> FrameType:
    """Return a frame of a function of a module of this name."""
    code = "import sys\ndef call():\n    return sys._getframe()\n"
    names: dict[str, Any] = {"__name__": module}
    exec(code, names)
    frame = names["call"]()
    assert isinstance(frame, FrameType)
    return frame


@pytest.mark.parametrize(
    ("module", "waits"),
    [
        ("torch.distributed.distributed_c10d", True),
        ("torch.nn.parallel.distributed", True),
        ("horovod.torch.mpi_ops", True),
        ("horovod_of_mine", False),
        ("own_model", False),
        ("torch.nn.modules.linear", False),
    ],
)
def test_a_rank_in_a_call_of_a_library_waits_where_that_communicates(
    module: str, waits: bool
) -> None:
    with WAITS.in_library():
        wait = WAITS.current
    assert WAITS.current is None
    assert _waits(wait, called_from(module)) is waits


def test_a_call_of_a_library_that_fails_is_left_for_those_who_ask_why() -> None:
    try:
        with pytest.raises(OSError), WAITS.in_library():
            raise OSError
        assert WAITS.current is not None
    finally:
        WAITS.end()
