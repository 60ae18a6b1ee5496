"""A signal ends a run whose data never come: exit code 75, one sentence, no rank left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpc_lpm.engine import quiet_end
from tests.mpi.ranks import finished, start
from tests.mpi.test_failures import sentences

pytestmark = pytest.mark.mpi

OWN = """
import ctypes
import os


def from_pipe(data_dir):
    reached()
    return open("pipe", "rb").read()


def within_a_library(data_dir):
    reached()
    read = ctypes.CDLL(None, use_errno=True).read  # is called again, as a library would
    descriptor = os.open("pipe", os.O_RDWR)
    while True:
        read(descriptor, ctypes.create_string_buffer(1), 1)


def reached():
    open(f"reached-{os.getpid()}", "w").close()
"""
ENDED_WITHIN_SECONDS = 60.0
PATIENCE_SECONDS = 120.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_hanging.py").write_text(OWN)
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def command(function: str, *options: str) -> list[str]:
    return [
        *("-m", "hpc_lpm", "train", "--model", "mlp", "--dataset", f"own_hanging:{function}"),
        *("--steps", "2", "--out", "run", *options),
    ]


def await_ranks(folder: Path, count: int, process: subprocess.Popen[str]) -> list[int]:
    """Wait until every rank reads, and return the processes of the ranks."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(list(folder.glob("reached-*"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    return sorted(int(path.name.partition("-")[2]) for path in folder.glob("reached-*"))


def runs(pid: int) -> bool:
    """Tell if a process is there that is more than an entry which nobody has asked for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("from_pipe", "SIGINT"),
        ("from_pipe", "SIGTERM"),
        ("within_a_library", "SIGUSR2"),
        ("within_a_library", "SIGHUP"),
    ],
)
def test_one_process_ends_at_once(folder: Path, function: str, name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, *command(function)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    await_ranks(folder, 1, process)
    sent = time.monotonic()
    process.send_signal(getattr(signal, name))
    done = finished(process, ENDED_WITHIN_SECONDS)
    # What a process without a launcher need not wait for, as a rank does.
    assert time.monotonic() - sent < quiet_end._KILLED_WITHIN_SECONDS
    assert done.returncode == 75
    assert done.stderr == (
        f"hpc-lpm: interrupted by {name} before the first step: there is nothing to save, run the "
        "command again.\n"
    )


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("mpirun", "SIGUSR2"),
        ("all ranks", "SIGTERM"),
        ("one rank", "SIGINT"),
    ],
)
def test_all_ranks_end(folder: Path, to: str, name: str) -> None:
    number = getattr(signal, name)
    launcher = start(2, *command("from_pipe", "--strategy", "fbp"))
    ranks = await_ranks(folder, 2, launcher)
    for pid in {"mpirun": [launcher.pid], "all ranks": ranks, "one rank": ranks[1:]}[to]:
        os.kill(pid, number)
    done = finished(launcher, ENDED_WITHIN_SECONDS)
    assert done.returncode == 75, done.stderr
    (sentence,) = sentences(done)
    assert f"interrupted by {name} before the first step: there is nothing to save" in sentence
    assert "Traceback" not in done.stderr
    deadline = time.monotonic() + ENDED_WITHIN_SECONDS
    while any(map(runs, ranks)):
        assert time.monotonic() < deadline, "a rank is left behind"
        time.sleep(0.05)
