"""`hpc-lpm train --in-one-process` heeds signals and names faults as ranks under mpirun do."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mpi.test_failures import THIRD, sentences, write_plan
from tests.mpi.test_interruption import (
    PATIENCE_SECONDS,
    check_alike,
    ended_by,
    finished,
    result,
    steps_of,
    train,
)

pytestmark = pytest.mark.mpi

STEPS = 300
PLAYED = ("--strategy", "fbp", "--in-one-process", "--ranks", "2", "--steps", str(STEPS))


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_makes_its_plan_stops_by_a_signal_and_goes_on_to_the_same_weights(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    process = started(train(out, *PLAYED))
    stopped = ended_by(process, out, 30, lambda: process.send_signal(signal.SIGTERM))
    assert stopped.returncode == 75, stopped.stderr
    (sentence,) = sentences(stopped)
    assert f"interrupted by SIGTERM after step {len(steps_of(out))} of {STEPS}: " in sentence
    assert f"checkpoint saved in {out / 'checkpoint'}; the same command with --resume" in sentence
    assert "no --plan was given: these ranks have profiled the model" in stopped.stdout

    resumed = finished(started(train(out, *PLAYED, "--resume")), PATIENCE_SECONDS)
    assert resumed.returncode == 0, resumed.stderr
    assert steps_of(out) == list(range(STEPS))
    drains = ",".join(map(str, result(out)["drains"]))
    planned = (*PLAYED, "--plan", str(out / "plan.json"), "--drain-at", drains)
    whole = finished(started(train(tmp_path / "whole", *planned)), PATIENCE_SECONDS)
    assert whole.returncode == 0, whole.stderr
    check_alike(result(out), result(tmp_path / "whole"))


@pytest.fixture
def _model_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(__file__).with_name("faulty_model.py"), tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


def faulty(folder: Path, fault: str, strategy: str) -> list[str]:
    return [
        *("-m", "hpc_lpm", "train", "--model", f"faulty_model:make,fault={fault}"),
        *("--dataset", "digits,size=8", "--strategy", strategy, "--batch-size", "8"),
        *("--micro-batches", "2", "--steps", "20", "--out", str(folder / "run")),
        *("--in-one-process", "--plan", str(write_plan(folder))),
    ]


@pytest.mark.usefixtures("_model_of_the_user")
def test_a_second_interruption_by_hand_ends_a_run_at_once(tmp_path: Path) -> None:
    process = started(faulty(tmp_path, "slow", "fbp"))

    def twice() -> None:
        process.send_signal(signal.SIGINT)
        # Two at the same moment are one.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (tmp_path / "noted").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)

    done = ended_by(process, tmp_path / "run", 1, twice)
    assert done.returncode == 130, "what shells say of an interrupted command"
    assert done.stderr == ""
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.usefixtures("_model_of_the_user")
@pytest.mark.parametrize("fault", ["forward", "backward"])
def test_a_fault_is_named_with_its_stage_micro_batch_and_layer(fault: str, tmp_path: Path) -> None:
    number, said = {"forward": ("5", "an odd pixel"), "backward": ("3", "gradient refused")}[fault]
    done = finished(started(faulty(tmp_path, fault, "1f1b")), PATIENCE_SECONDS)
    assert done.returncode == 1, done.stderr
    (sentence,) = sentences(done)
    expected = f"stage 1 (rank 1), micro-batch {number}, {THIRD}ValueError: {said}"
    assert expected in sentence, sentence
    assert "Traceback" not in done.stderr
