"""A process that is supervised does not outlive its supervisor."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc_lpm.launcher_watch import supervised

SUPERVISED = """
import time
from hpc_lpm import launcher_watch
launcher_watch._SECONDS_BETWEEN_LOOKS = 0.1
launcher_watch.watch_launcher()
print("watching", flush=True)
time.sleep(600)
"""
SOME_LOOKS_SECONDS = 1.0
SUPERVISOR = """
import os, subprocess, sys
from hpc_lpm.launcher_watch import supervised
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=supervised(os.environ))
print(child.pid, flush=True)
child.wait()
"""


def ended_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_it_ends_with_a_sentence_once_its_supervisor_was_killed() -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, SUPERVISED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    assert supervisor.stderr is not None
    child = int(supervisor.stdout.readline())
    try:
        assert supervisor.stdout.readline() == "watching\n"
        assert not ended_within(child, SOME_LOOKS_SECONDS)
        supervisor.kill()
        supervisor.wait()
        assert ended_within(child, 60.0)
    finally:
        if not ended_within(child, 0.1):
            os.kill(child, signal.SIGKILL)
    said = supervisor.stderr.read()
    assert said.startswith(f"hpc-lpm: process {supervisor.pid}, which supervised the launcher of")
    assert said.endswith("start it again, with --resume if it trains.\n")


@pytest.mark.parametrize("named", ["another host", "a process that is gone", "nothing"])
def test_a_supervisor_that_cannot_be_seen_ends_nothing(named: str) -> None:
    environment = supervised(os.environ)
    host, number, *began = environment["HPC_LPM_SUPERVISOR"].split()
    environment["HPC_LPM_SUPERVISOR"] = {
        "another host": f"elsewhere {number} {' '.join(began)}",
        "a process that is gone": f"{host} {number} {began[0]} 1",
        "nothing": "",
    }[named]
    child = subprocess.Popen(
        [sys.executable, "-c", SUPERVISED], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "watching\n"
    assert not ended_within(child.pid, SOME_LOOKS_SECONDS)
    child.kill()
    child.wait()
