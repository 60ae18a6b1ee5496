"""However a script ends on some rank, all ranks end within seconds, and one of them says why."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.mpi.ranks import PROGRAMS, finished, start_script

pytestmark = pytest.mark.mpi

SCRIPT = str(PROGRAMS / "ending_script.py")
LIMIT_SECONDS, ENDED_WITHIN_SECONDS = 240.0, 120.0
"""For how long a rank waits for the others, and half of that, on a crowded machine."""

BAD_INPUT = "batch 3 has 7 samples, accepted are 8: leave it out."
LEFT = "the script has ended after step 7, while other ranks still train: call engine.drain()"


def end(launcher: str, how: str, ranks: str) -> subprocess.CompletedProcess[str]:
    """Run the script to that end of these ranks."""
    count = 1 if launcher == "alone" else 2
    start = time.monotonic()
    arguments = (SCRIPT, how, ranks, str(LIMIT_SECONDS))
    done = finished(start_script(launcher, count, *arguments), LIMIT_SECONDS)
    assert time.monotonic() - start < ENDED_WITHIN_SECONDS
    return done


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what ranks have said, without what launchers add."""
    lines = done.stderr.replace("\0", "").splitlines()
    return [line for line in lines if line.startswith(("hpc-lpm:", "KeyError", "KeyboardInt"))]


@pytest.mark.parametrize(
    ("how", "ranks", "exit_code", "sentences"),
    [
        ("own", "1", 1, ["rank 1 on {host} ends all ranks by KeyError:", "'a mistake of mine'"]),
        ("own", "01", 1, ["rank 0 on {host} ends all ranks by KeyError:", "'a mistake of mine'"]),
        ("input", "01", 2, [f"hpc-lpm: {BAD_INPUT}"]),
        ("input", "1", 2, [f"rank 1 on {{host}}: {BAD_INPUT}"]),
        ("training", "0", 1, ["hpc-lpm: stage 1, micro-batch 3: the loss is nan."]),
        ("exit", "1", 1, [f"rank 1 on {{host}}: {LEFT}"]),
        ("exit", "01", 0, []),
        ("interrupt", "1", 130, ["ends all ranks by KeyboardInterrupt", "KeyboardInterrupt"]),
        ("kill", "0", 137, []),
    ],
)
def test_under_mpirun_the_first_rank_speaks_and_all_end(
    how: str, ranks: str, exit_code: int, sentences: list[str]
) -> None:
    done = end("mpirun", how, ranks)
    assert done.returncode == exit_code, done.stderr
    lines = said(done)
    assert len(lines) == len(sentences), done.stderr
    for line, sentence in zip(lines, sentences, strict=True):
        assert sentence.format(host=os.uname().nodename) in line


@pytest.mark.parametrize(
    ("how", "ranks", "sentence"),
    [
        ("own", "1", "rank 1 on {host} ends all ranks by KeyError:"),
        ("exit", "1", f"rank 1 on {{host}}: {LEFT}"),
    ],
)
def test_under_torchrun_too(how: str, ranks: str, sentence: str) -> None:
    done = end("torchrun", how, ranks)
    assert done.returncode == 1  # whatever the ranks return
    ours = [line for line in said(done) if line.startswith("hpc-lpm:")]
    assert len(ours) == 1, done.stderr
    assert sentence.format(host=os.uname().nodename) in ours[0]


@pytest.mark.parametrize(
    ("how", "exit_code", "sentence"),
    [("own", 1, None), ("input", 2, BAD_INPUT), ("interrupt", -signal.SIGINT, None)],
)
def test_alone_a_script_ends_as_any_python(how: str, exit_code: int, sentence: str | None) -> None:
    done = end("alone", how, "0")
    assert done.returncode == exit_code
    if sentence:
        assert done.stderr == f"hpc-lpm: {sentence}\n"
    else:
        assert done.stderr.startswith("Traceback (most recent call last):")


@pytest.mark.parametrize("launcher", ["mpirun", "torchrun"])
def test_ctrl_c_leaves_nothing_behind(launcher: str, tmp_path: Path) -> None:
    process = start_script(launcher, 2, SCRIPT, "wait", "", folder=tmp_path)
    assert process.stdout is not None
    for _ in range(2):
        assert "has begun" in process.stdout.readline()
    ranks = psutil.Process(process.pid).children(recursive=True)
    shared = {
        Path(mapped.path)
        for rank in ranks
        for mapped in rank.memory_maps()
        if mapped.path.startswith("/dev/shm/")
    }
    assert len(ranks) >= 2
    assert shared or launcher == "torchrun"

    process.send_signal(signal.SIGINT)
    finished(process, ENDED_WITHIN_SECONDS)
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive
    assert not [path for path in shared if path.exists()]
    # torchrun leaves its empty folder of logs behind, whatever it runs.
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("torchelastic_")]
