"""What cannot be interrupted is ended from outside, by a sentence, once it takes too long."""

import os
import signal
import subprocess
import sys

import pytest

LONG_SECONDS = 120.0
"""Longer than anything takes that is waited for here."""
HANGING_SECONDS = 600
"""Longer than a test waits, so that who hangs so long must have been ended."""

WAITING = """
import ctypes, sys, time
from hpc_lpm import native_waits
native_waits._TURN_SECONDS = 0.5
limit_seconds, rank = float(sys.argv[2]), int(sys.argv[3])
if sys.argv[1] == "WaitGuard":
    guard = native_waits.WaitGuard(limit_seconds, rank, "a test", lambda: "it is rank 7.")
    with guard.bounded():
        pass
    bounded = guard.bounded()
else:
    bounded = getattr(native_waits, sys.argv[1])(limit_seconds, rank, "a test")
with bounded:
    # PyDLL keeps the lock of Python, CDLL does not.
    getattr(ctypes, sys.argv[4])(None).sleep(int(sys.argv[5]))
print("done")
"""


def run(
    by: str, limit_seconds: float, rank: int, library: str, seconds: int
) -> "subprocess.CompletedProcess[str]":
    words = (by, str(limit_seconds), str(rank), library, str(seconds))
    return subprocess.run(
        [sys.executable, "-c", WAITING, *words],
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("by", "library", "code"),
    [
        ("bounded_by_thread", "CDLL", 1),
        ("bounded_by_child", "CDLL", -signal.SIGALRM),
        ("bounded_by_child", "PyDLL", -signal.SIGALRM),
    ],
)
def test_a_wait_beyond_the_limit_ends_the_process(by: str, library: str, code: int) -> None:
    done = run(by, 1.0, 1, library, HANGING_SECONDS)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr == (
        f"hpc-lpm: rank 1 on {os.uname().nodename}: a test takes more than 1 s: another rank hangs "
        "or is gone; raise --receive-timeout if it is only slow.\n"
    )


def test_a_guard_of_several_waits_says_who_is_waited_for() -> None:
    done = run("WaitGuard", 1.0, 0, "CDLL", HANGING_SECONDS)
    assert (done.returncode, done.stdout) == (1, "")
    where = f"rank 0 on {os.uname().nodename}"
    assert done.stderr == f"hpc-lpm: {where}: a test takes more than 1 s: it is rank 7.\n"


@pytest.mark.parametrize("by", ["bounded_by_thread", "bounded_by_child", "WaitGuard"])
def test_a_wait_within_the_limit_leaves_nothing_behind(by: str) -> None:
    done = run(by, LONG_SECONDS, 0, "CDLL", 0)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
