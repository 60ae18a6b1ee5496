"""Other programs are asked with a time limit and leave nothing behind."""

import os
import time

import psutil

from hpc_lpm.programs import ask


def test_a_program_that_hangs_is_stopped_with_its_children() -> None:
    # Sleeps by whose length they are told from those of other processes of the machine.
    first, second = (f"{seconds}.{os.getpid()}" for seconds in (601, 602))
    # The inner shell leaves the process group, as ranks do, and holds the pipe open.
    script = f"setsid sh -c 'sleep {first} & sleep {second}' & echo started; wait"
    before = time.monotonic()
    answer = ask(["sh", "-c", script], seconds=1.0)
    assert time.monotonic() - before < 120
    assert answer.exit_code is None
    assert "in time" in answer.complaint()
    names = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert ["sleep", first] not in names
    assert ["sleep", second] not in names


def test_a_program_that_is_missing_or_fails_says_why() -> None:
    assert "No such file" in ask(["/no/such/program"]).complaint()
    failed = ask(["sh", "-c", "echo; echo ---- >&2; echo 'the  reason' >&2; echo more >&2; exit 3"])
    assert (failed.exit_code, failed.complaint()) == (3, "the reason")
    assert ask(["sh", "-c", "exit 3"]).complaint() == "it ended with exit code 3"
