"""How a trial's start is judged: interrupted, lost, failed for good, or done."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign import rank_start
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import read_attempts
from hpc_lpm.campaign.launching import launch_trial
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trial_attempts import RANKS_LOST

NAME = "resnet20-digits-sequential-k1-seed0-repeat0"
INTERRUPTED = """
import signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    return write_folder(tmp_path / "c", campaign(restarts=0))


def launch(folder: CampaignFolder, said: list[str], attempt: int = 1) -> int:
    log = folder.run(NAME) / "train.log"
    steps = Steps(folder.read_campaign(), folder)
    return launch_trial(steps, NAME, [], 1, "mpirun", log, said.append, attempt=attempt)


def command_is(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(rank_start, "rank_command", lambda *_: [sys.executable, "-c", code])


def test_a_launcher_that_claims_success_without_a_result_is_not_believed(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.run(NAME) / "result.json").unlink()
    command_is(monkeypatch, "")
    said: list[str] = []
    assert launch(folder, said) == RANKS_LOST
    assert "ended without a result" in said[0]
    assert launch(folder, said, attempt=2) == RANKS_LOST  # it is worth another attempt
    assert len(read_attempts(folder.run(NAME) / "attempts.json")) == 2


@pytest.mark.parametrize("code", [1, 2])
def test_what_failed_for_good_is_not_run_again_by_the_same_driver(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    command_is(monkeypatch, f"import sys; sys.exit({code})")
    said: list[str] = []
    assert launch(folder, said) == code
    command_is(monkeypatch, "raise AssertionError")
    assert launch(folder, said, attempt=2) == code
    assert "would again" in said[-1]
    record = folder.run(NAME) / "attempts.json"
    assert [one.exit_code for one in read_attempts(record)] == [code]
    # Another driver, which somebody has started, tries.
    command_is(monkeypatch, "")
    assert launch(folder, said) == 0


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)])
def test_a_job_goes_back_into_the_queue_if_its_time_was_up(
    folder: CampaignFolder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    number: int,
    requeued: bool,
) -> None:
    calls = tmp_path / "calls"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$*" >> "{calls}"\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    command_is(monkeypatch, INTERRUPTED)
    log = folder.run(NAME) / "train.log"
    log.unlink(missing_ok=True)

    def stop() -> None:
        while not log.exists() or "ready" not in log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    said: list[str] = []
    assert launch(folder, said) == 75
    assert ("requeue 4711" in calls.read_text().splitlines()) is requeued
    assert any("goes back into the queue" in line for line in said) is requeued


def test_the_checkpoint_of_a_trial_that_is_done_goes(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = folder.run(NAME) / "checkpoint"
    checkpoint.mkdir()
    command_is(monkeypatch, "import sys; sys.exit(75)")
    launch(folder, [])
    assert checkpoint.exists()
    command_is(monkeypatch, "")
    launch(folder, [])
    assert not checkpoint.exists()


WRITES_A_RESULT = """
import pathlib, sys
pathlib.Path({result!r}).write_text("{{}}")
sys.exit(1)
"""


def test_a_training_that_fails_after_its_result_was_written_is_done(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = folder.run(NAME) / "result.json"
    result.unlink()
    command_is(monkeypatch, WRITES_A_RESULT.format(result=str(result)))
    said: list[str] = []
    assert launch(folder, said) == 0
    assert any("exit code 1 after its result was written" in line for line in said)
    assert result.exists()


def test_a_log_that_is_damaged_ends_no_trial(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = folder.run(NAME) / "metrics.jsonl"
    log.write_text(log.read_text()[:70] + "\n\0\0\n[1]\n")
    command_is(monkeypatch, "")
    assert launch(folder, []) == 0
