"""Ranks that wait in vain say which one all of them wait for, and what every one of them did."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from hpc_lpm.engine.watchdog import FOLDER
from tests.mpi.ranks import finished, start

pytestmark = pytest.mark.mpi

LIMIT_SECONDS = 8
TRAINING = (
    *("-m", "hpc_lpm", "train", "--model", "mlp,layers=6,width=16"),
    # No end of an epoch, at which ranks meet in other ways, comes between.
    *("--dataset", "synthetic,samples=400000,features=64"),
    *("--strategy", "fbp", "--steps", "1000000", "--receive-timeout", f"{LIMIT_SECONDS}s"),
    *("--batch-size", "64", "--micro-batches", "4", "--out", "run"),
)
OWN = """
import time
from pathlib import Path
import torch
from torch import nn


class Sleeper(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 16)
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        if self.passes > 400:
            time.sleep(1000)
        return self.linear(x.flatten(1))


def model(shape):
    return nn.Sequential(Sleeper(), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))
"""


OF_RANK_1 = OWN.replace("import time", "import os\nimport time").replace(
    "if self.passes > 400:",
    'if self.passes > 100 and os.environ["OMPI_COMM_WORLD_RANK"] == "1":',
)


def reports(out: Path) -> dict[int, dict[str, object]]:
    found = [json.loads(path.read_text()) for path in (out / FOLDER).glob("rank-*.json")]
    return {report["rank"]: report for report in found}


def said_by(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """Return our sentences; Open MPI may end its own notice before one with a null byte."""
    lines = done.stderr.replace("\0", "").splitlines()
    said = [line for line in lines if line.startswith("hpc-lpm: ")]
    assert said, done.stderr
    return said


def ranks_that_train(launcher: "subprocess.Popen[str]", out: Path) -> dict[int, psutil.Process]:
    """Return the processes of the ranks, once they have trained some steps."""
    log, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") > 20:
            break
        time.sleep(0.1)
    ranks = {}
    for process in psutil.Process(launcher.pid).children(recursive=True):
        number = process.environ().get("OMPI_COMM_WORLD_RANK")
        if number is not None and "hpc_lpm" in process.cmdline():
            ranks[int(number)] = process
    return ranks


def assert_rank_1_is_named(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 1
    said = said_by(done)
    assert "all wait for rank 1, which gives no answer: it was stopped or killed" in said[0]
    assert f"{Path('run') / FOLDER} says what each rank did." in said[0]


def test_a_rank_that_is_stopped_is_named_by_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher = start(3, *TRAINING)
    ranks = ranks_that_train(launcher, tmp_path / "run")
    os.kill(ranks[1].pid, signal.SIGSTOP)
    assert_rank_1_is_named(finished(launcher, 120))
    found = reports(tmp_path / "run")
    found.pop(1, None)  # a launcher continues what is stopped, to end it
    assert set(found) == {0, 2}
    for rank, report in found.items():
        assert report["process"] == ranks[rank].pid
        # For it alone, or at a barrier, where all are waited for.
        assert (report["waiting"], report["waits_for"] in (None, 1)) == (True, True)
        assert "its last instruction was the " in str(report["doing"])
        assert "wait_until" in "".join(map(str, report["stack"]))  # type: ignore[call-overload]


@pytest.mark.parametrize("strategy", ["horovod", "ddp", "deepspeed-1f1b"])
def test_a_rank_that_is_stopped_is_named_where_a_library_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [strategy if word == "fbp" else word for word in TRAINING]
    launcher = start(2, *words)
    ranks = ranks_that_train(launcher, tmp_path / "run")
    os.kill(ranks[1].pid, signal.SIGSTOP)
    assert_rank_1_is_named(finished(launcher, 120))
    assert reports(tmp_path / "run")[0]["waiting"] is True


def test_a_rank_in_code_of_the_users_is_named_where_a_library_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_sleeper.py").write_text(OF_RANK_1)
    named = {"mlp,layers=6,width=16": "own_sleeper:model", "fbp": "fsdp"}
    done = finished(start(2, *(named.get(word, word) for word in TRAINING)), 180)
    assert done.returncode == 1
    said = said_by(done)
    assert "all wait for rank 1 on " in said[0]
    found = reports(tmp_path / "run")
    assert (found[0]["waiting"], found[1]["waiting"]) == (True, False)
    assert "time.sleep(1000)" in "".join(map(str, found[1]["stack"]))  # type: ignore[call-overload]


def test_a_rank_that_is_in_code_of_the_users_is_named_with_its_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_sleeper.py").write_text(OWN)
    words = [word.replace("mlp,layers=6,width=16", "own_sleeper:model") for word in TRAINING]
    done = finished(start(2, *words), 180)
    assert done.returncode == 1
    said = said_by(done)
    assert "all wait for rank 0 on " in said[0]
    assert "which does not wait itself: its last instruction was the " in said[0]
    found = reports(tmp_path / "run")
    assert set(found) == {0, 1}
    assert (found[0]["waiting"], found[1]["waits_for"]) == (False, 0)
    assert "time.sleep(1000)" in "".join(map(str, found[0]["stack"]))  # type: ignore[call-overload]
