"""A rank that stops, at whatever moment of the start, ends the run in time and by a sentence."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.mpi.ranks import finished, start
from tests.soak.kill_ranks import is_alive

pytestmark = pytest.mark.mpi

LIMIT_SECONDS = 5
STARTED_WITHIN_SECONDS = 120.0
ENDED_WITHIN_SECONDS = 60.0
TRAINING = (
    *("-m", "hpc_lpm", "train", "--model", "mlp", "--dataset", "digits", "--strategy", "fbp"),
    *("--steps", "1000000", "--receive-timeout", f"{LIMIT_SECONDS}s", "--out", "run"),
)


def ranks_of(launcher: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Return the processes of the ranks, once their programs run: the launcher waits for that."""
    deadline = time.monotonic() + STARTED_WITHIN_SECONDS
    while time.monotonic() < deadline:
        assert launcher.poll() is None, launcher.communicate()
        found = {}
        for process in psutil.Process(launcher.pid).children():
            with suppress(psutil.Error):
                # Before it runs a program of its own, it has the environment of the launcher.
                number = process.environ().get("OMPI_COMM_WORLD_RANK")
                if number is not None:
                    found[int(number)] = process
        if len(found) == 2:
            return [found[rank] for rank in sorted(found)]
        time.sleep(0.01)
    raise AssertionError("the ranks did not start")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("moment_seconds", [0.05, 1.5, 3.0])
def test_the_others_do_not_wait_longer_than_the_limit(
    rank: int, moment_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = start(2, *TRAINING)
    ranks = ranks_of(launcher)
    time.sleep(moment_seconds)
    os.kill(ranks[rank].pid, signal.SIGSTOP)
    stopped = time.monotonic()
    done = finished(launcher, STARTED_WITHIN_SECONDS)
    assert time.monotonic() - stopped < ENDED_WITHIN_SECONDS
    assert done.returncode != 0
    # mpirun ends some of its own writes with a zero byte.
    lines = done.stderr.replace("\0", "").splitlines()
    said = [line for line in lines if line.startswith("hpc-lpm: ")]
    assert said, done.stderr
    assert "hangs or is gone" in said[0]
    assert "--receive-timeout" in said[0]
    if "the start of MPI" in said[0]:
        # The launcher has stopped none of the others.
        assert f": rank {rank} (process {ranks[rank].pid}), stopped by a signal" in said[0]
    assert "Traceback" not in done.stderr
    deadline = time.monotonic() + ENDED_WITHIN_SECONDS
    while any(map(is_alive, ranks)):
        assert time.monotonic() < deadline, "a rank is left behind"
        time.sleep(0.05)
