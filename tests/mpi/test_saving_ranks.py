"""Checkpoints that are written behind training, under real ranks that stop, die and fill disks."""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hpc_lpm.engine.checkpoint.store import Checkpoint, checkpoints_of
from tests.mpi.ranks import PROGRAMS, finished, start
from tests.mpi.test_bad_input import LAYERS, write_plan
from tests.mpi.test_exactness import MLP, RESNET
from tests.mpi.test_failures import sentences
from tests.mpi.test_interruption import PATIENCE_SECONDS, ranks_of, steps_of
from tests.mpi.test_resume import run_cases, settings

pytestmark = pytest.mark.mpi

EVERY, STEPS = 50, 500
RUN = {
    "model": "mlp,width=64",
    "dataset": "digits,size=8",
    "strategy": "fbp",
    **{"batch_size": 16, "micro_batches": 4, "steps": STEPS, "receive_timeout_seconds": 60},
}
"""What `disturbed` trains."""


def disturbed(how: str, out: Path, *options: str) -> subprocess.Popen[str]:
    """A run that saves every few steps, on two ranks of which the second one is slow to write."""
    plan = write_plan(out.parent / "plan.json", LAYERS, 2)
    return start(
        *(2, str(PROGRAMS / "slow_saving.py"), "1", how, "train"),
        *("--model", "mlp,width=64", "--dataset", "digits,size=8", "--strategy", "fbp"),
        *("--plan", str(plan), "--batch-size", "16", "--micro-batches", "4"),
        *("--steps", str(STEPS), "--receive-timeout", "60", "--out", str(out)),
        *("--checkpoint-steps", str(EVERY), "--checkpoint-epochs", "0", *options),
    )


def wait_until_it_writes_behind(process: subprocess.Popen[str], out: Path, step: int) -> None:
    """Wait until a checkpoint after this step is being written and training has gone on."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None:
        assert time.monotonic() < deadline
        trained = max(steps_of(out), default=0) > step + 5
        if trained and (out / "checkpoint" / f".step-{step}.partial").exists():
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def names(out: Path) -> list[str]:
    return [path.name for path in checkpoints_of(out / "checkpoint")]


def test_a_signal_and_a_kill_while_files_are_written_cost_no_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = disturbed("1.5", out)
    wait_until_it_writes_behind(process, out, 2 * EVERY)
    os.kill(process.pid, signal.SIGUSR2)
    stopped = finished(process, PATIENCE_SECONDS)
    assert stopped.returncode == 75, stopped.stderr
    (newest, older) = names(out)
    last = int(newest.removeprefix("step-"))
    assert f"after step {last} of {STEPS}: checkpoint saved in" in sentences(stopped)[0]
    # The one that was being written, or the next if the signal came late.
    assert older == f"step-{max(2, (last - 1) // EVERY) * EVERY}"
    for path in checkpoints_of(out / "checkpoint"):
        Checkpoint.opened(path).check_bytes(0, 1)

    process = disturbed("60", out, "--resume")
    first = (last // EVERY + 1) * EVERY
    wait_until_it_writes_behind(process, out, first + EVERY)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    killed = finished(process, PATIENCE_SECONDS)
    assert killed.returncode not in {0, 75}
    assert names(out)[0] == f"step-{first}"
    assert (out / "checkpoint" / f".step-{first + EVERY}.partial").exists()

    cuts = [0, LAYERS // 2, LAYERS]
    resumed, whole = run_cases(
        2,
        [
            {**RUN, "cuts": cuts, "folder": str(out), "resume": True, "checkpoint_steps": EVERY},
            {**RUN, "cuts": cuts, "folder": str(tmp_path / "whole"), "drain_like": 0},
        ],
        tmp_path,
    )
    assert resumed["interruptions"] == 2
    for name in ("weights_sha256", "train_loss", "drains", "lag_counts"):
        assert resumed[name] == whole[name], name
    assert list((out / "checkpoint").glob(".*")) == []


def test_a_disk_that_is_full_behind_training_ends_it_by_one_sentence(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = finished(disturbed("full", out), PATIENCE_SECONDS)
    assert done.returncode == 1, done.stderr
    (sentence,) = sentences(done)
    assert f"checkpoint {out / 'checkpoint' / f'step-{2 * EVERY}'} cannot be saved" in sentence
    assert "(rank 1): " in sentence
    assert "File too large" in sentence
    assert max(steps_of(out)) < 3 * EVERY
    assert [path.name for path in (out / "checkpoint").iterdir()] == [f"step-{EVERY}"]


def test_each_checkpoint_goes_on_to_the_bits_of_a_run_that_saves_nothing(tmp_path: Path) -> None:
    runs = [settings(MLP, "fbp", 2, 4), settings(RESNET, "ddp", 2, 4)]
    if importlib.util.find_spec("horovod"):
        runs.append(settings(RESNET, "horovod", 2, 4))
    every = {"checkpoint_steps": 5, "keep_checkpoints": 9}
    cases = []
    for number, run in enumerate(runs):
        cases.append({**run, **every, "folder": str(tmp_path / f"saving-{number}")})
        calm = {"drain_at": [5, 10, 15], "checkpoint_epochs": 0}
        cases.append({**run, **calm, "folder": str(tmp_path / f"calm-{number}")})
    outcomes = run_cases(2, cases, tmp_path)
    cases, expected = [], []
    for number, run in enumerate(runs):
        saving, calm = outcomes[2 * number : 2 * number + 2]
        assert saving["checkpoints_saved"] == 4
        assert calm["checkpoints_saved"] == 0
        assert min(saving["saving_copy_seconds"]) > 0
        assert min(saving["saving_behind_seconds"]) > 0
        saved = checkpoints_of(tmp_path / f"saving-{number}" / "checkpoint")
        assert [path.name for path in saved] == ["step-16", "step-15", "step-10", "step-5"]
        for path in saved[1:]:
            folder = tmp_path / f"{number}-{path.name}"
            shutil.copytree(path, folder / "checkpoint" / path.name)
            cases.append({**run, **every, "folder": str(folder), "resume": True})
            expected.append(calm)
        expected.append(calm)
        cases.append({**run, **every, "folder": str(tmp_path / f"again-{number}")})
    for calm, found in zip(expected, run_cases(2, cases, tmp_path), strict=True):
        for name in ("weights_sha256", "train_loss", "drains", "lag_counts"):
            assert found[name] == calm[name], (name, found["settings"])
