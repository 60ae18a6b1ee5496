"""`hpc-lpm train` under real signals: exit code 75, one sentence, and --resume to the same bits."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.mpi.ranks import PROGRAMS, finished, start
from tests.mpi.test_bad_input import LAYERS, write_plan
from tests.mpi.test_failures import sentences

pytestmark = pytest.mark.mpi

STEPS = 400
EPOCH = 89
PATIENCE_SECONDS = 120.0
"""For a command on a machine that others use as well."""


def train(out: Path, *options: str) -> list[str]:
    return [
        *("-m", "hpc_lpm", "train", "--model", "mlp,width=8", "--dataset", "digits,size=8"),
        *("--batch-size", "16", "--micro-batches", "4", "--steps", str(STEPS), "--lr", "0.01"),
        *("--receive-timeout", "60", "--out", str(out), *options),
    ]


def pipeline(out: Path, *options: str) -> list[str]:
    plan = write_plan(out.parent / "plan.json", LAYERS, 2)
    return train(out, "--strategy", "fbp", "--plan", str(plan), *options)


def alone(out: Path, *options: str) -> subprocess.Popen[str]:
    """The command without mpirun."""
    return subprocess.Popen(
        [sys.executable, *train(out, *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps_of(out: Path) -> list[int]:
    path = out / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [entry["step"] for entry in map(json.loads, lines) if "step" in entry]


def ended_by(
    process: subprocess.Popen[str], out: Path, step: int, send: Callable[[], None]
) -> subprocess.CompletedProcess[str]:
    """Let it train until some step, send a signal and wait for its end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while max(steps_of(out), default=0) < step and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    send()
    return finished(process, PATIENCE_SECONDS)


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    return [child.pid for child in psutil.Process(launcher.pid).children()]


def catches(pid: int, number: int) -> bool:
    """Tell if a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = [line.split()[1] for line in status if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (number - 1) & 1)


def result(out: Path) -> dict:
    found: dict = json.loads((out / "result.json").read_text())
    return found


def check_alike(first: dict, second: dict) -> None:
    for name in ("weights_sha256", "train_loss", "test_accuracy", "drains", "lag_counts"):
        assert first[name] == second[name], name


def test_a_run_stops_by_signals_and_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = start(2, *pipeline(out))
    by_mpirun = ended_by(launcher, out, 30, lambda: os.kill(launcher.pid, signal.SIGUSR2))
    assert by_mpirun.returncode == 75, by_mpirun.stderr
    (sentence,) = sentences(by_mpirun)
    stopped = len(steps_of(out))
    assert f"interrupted by SIGUSR2 after step {stopped} of {STEPS}: " in sentence
    assert f"checkpoint saved in {out / 'checkpoint'}; the same command with --resume" in sentence
    assert not (out / "result.json").exists()
    assert steps_of(out) == list(range(stopped))

    launcher = start(2, *pipeline(out, "--resume"))

    def to_all_ranks() -> None:
        for pid in ranks_of(launcher):
            os.kill(pid, signal.SIGTERM)

    by_ranks = ended_by(launcher, out, stopped + 30, to_all_ranks)
    assert by_ranks.returncode == 75, by_ranks.stderr
    (sentence,) = sentences(by_ranks)
    assert "interrupted by SIGTERM after step" in sentence
    assert f"resuming from {out / 'checkpoint' / f'step-{stopped}'}" in by_ranks.stdout

    done = finished(start(2, *pipeline(out, "--resume")), PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    resumed = result(out)
    assert resumed["interruptions"] == 2
    assert steps_of(out) == list(range(STEPS))

    drains = ",".join(map(str, resumed["drains"]))
    whole = finished(
        start(2, *pipeline(tmp_path / "whole", "--drain-at", drains)), PATIENCE_SECONDS
    )
    assert whole.returncode == 0, whole.stderr
    check_alike(resumed, result(tmp_path / "whole"))

    again = finished(start(2, *pipeline(out, "--resume")), PATIENCE_SECONDS)
    assert again.returncode == 0, again.stderr
    assert result(out) == resumed, "a finished run stays as it is"


def test_a_crash_goes_on_from_the_checkpoint_of_the_last_epoch(tmp_path: Path) -> None:
    out = tmp_path / "run"
    saved = out / "checkpoint" / f"step-{EPOCH}"
    # It dies by itself: a kill from here could come after the next epoch.
    dying = (str(PROGRAMS / "dying_rank.py"), "1", str(EPOCH + 40), str(saved))
    _, _, *arguments = pipeline(out)
    crashed = finished(start(2, *dying, *arguments), PATIENCE_SECONDS)
    assert crashed.returncode not in {0, 75}
    assert "signal 9" in crashed.stderr
    assert list((out / "checkpoint").glob("step-*")) == [saved]
    done = finished(start(2, *pipeline(out, "--resume")), PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert f"after step {EPOCH} of {STEPS}" in done.stdout
    assert steps_of(out) == list(range(STEPS))
    whole = finished(start(2, *pipeline(tmp_path / "whole")), PATIENCE_SECONDS)
    assert whole.returncode == 0, whole.stderr
    check_alike(result(out), result(tmp_path / "whole"))
    assert result(out)["drains"] == []


@pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not installed here"
)
def test_horovod_stops_in_order_by_a_signal_that_mpi_takes_when_it_starts(tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = start(2, *train(out, "--strategy", "horovod"))
    done = ended_by(launcher, out, 30, lambda: os.kill(ranks_of(launcher)[1], signal.SIGHUP))
    assert done.returncode == 75, done.stderr
    (sentence,) = sentences(done)
    assert "interrupted by SIGHUP after step" in sentence


def test_independent_ranks_stop_without_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = start(2, *train(out, "--strategy", "limit"))
    done = ended_by(launcher, out, 30, lambda: os.kill(launcher.pid, signal.SIGUSR2))
    assert done.returncode == 75, done.stderr
    (sentence,) = sentences(done)
    assert "strategy limit saves no checkpoint" in sentence
    assert not (out / "checkpoint").exists()


def test_one_process_stops_and_a_run_without_resume_starts_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = alone(out)
    stopped = ended_by(process, out, 30, lambda: process.send_signal(signal.SIGINT))
    assert stopped.returncode == 75, stopped.stderr
    assert "interrupted by SIGINT after step" in sentences(stopped)[0]
    assert (out / "checkpoint").exists()
    again = finished(alone(out, "--drain-at", "7", "--checkpoint-epochs", "0"), PATIENCE_SECONDS)
    assert again.returncode == 0, again.stderr
    assert result(out)["drains"] == [7]
    assert result(out)["interruptions"] == 0
    assert not (out / "checkpoint").exists(), "what an earlier run saved is no part of this one"


def test_a_signal_before_the_first_step_saves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = alone(out, "--resume")
    # The imports have not ended then.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not catches(process.pid, signal.SIGTERM):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    done = finished(process, PATIENCE_SECONDS)
    assert done.returncode == 75, done.stderr
    assert "interrupted by SIGTERM before the first step: there is nothing" in sentences(done)[0]
    assert not (out / "checkpoint").exists()
