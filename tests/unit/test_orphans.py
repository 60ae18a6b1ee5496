"""What a driver that was killed has left running is told to save its progress, and ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hpc_lpm.campaign.driver import Driver, no_driver, take_over
from hpc_lpm.campaign.orphans import end_orphans, mark, processes_of
from hpc_lpm.errors import InputError

PATIENT = """
import signal, sys, time
def save(*_):
    open(sys.argv[1], "w").write("saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(600)
"""
STUBBORN = PATIENT.replace("signal.SIGTERM, save", "signal.SIGTERM, signal.SIG_IGN")


@pytest.fixture
def started() -> "Iterator[list[subprocess.Popen[str]]]":
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def run(
    processes: "list[subprocess.Popen[str]]", root: Path, program: str, *words: str
) -> "subprocess.Popen[str]":
    environment = dict(os.environ)
    mark(environment, root)
    command = [sys.executable, "-c", program, str(root / "saved"), *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_training_saves_its_progress_before_it_ends(
    tmp_path: Path, started: "list[subprocess.Popen[str]]"
) -> None:
    orphan = run(started, tmp_path, PATIENT, "hpc_lpm", "campaign", "launch")
    said: list[str] = []
    take_over(tmp_path, Driver.here(None), said.append).close()
    assert orphan.wait(timeout=60) == 75
    assert (tmp_path / "saved").read_text() == "saved"
    (sentence,) = said
    assert sentence.endswith(f"once it is saved: process {orphan.pid}")


def test_ranks_whose_launcher_is_gone_are_told_themselves(
    tmp_path: Path, started: "list[subprocess.Popen[str]]"
) -> None:
    ranks = [run(started, tmp_path, PATIENT, "-m", "hpc_lpm", "train") for _ in range(2)]
    end_orphans(tmp_path, lambda _: None)
    assert [rank.wait(timeout=60) for rank in ranks] == [75, 75]


def test_what_does_not_end_in_time_is_killed(
    tmp_path: Path, started: "list[subprocess.Popen[str]]"
) -> None:
    orphan = run(started, tmp_path, STUBBORN, "hpc_lpm", "campaign", "launch")
    helper = run(started, tmp_path, STUBBORN)
    began = time.monotonic()
    end_orphans(tmp_path, lambda _: None, grace_seconds=0.5)
    assert time.monotonic() - began < 60
    assert [each.wait(timeout=60) for each in (orphan, helper)] == [-signal.SIGKILL] * 2


def test_other_campaigns_and_the_process_itself_are_left_alone(
    tmp_path: Path, started: "list[subprocess.Popen[str]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    other = run(started, tmp_path / "b", PATIENT, "hpc_lpm", "campaign", "launch")
    end_orphans(tmp_path / "a", pytest.fail)
    assert other.poll() is None
    assert [each.pid for each in processes_of(tmp_path / "b")] == [other.pid]
    # Through a link it is the same folder.
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert [each.pid for each in processes_of(tmp_path / "link")] == [other.pid]
    monkeypatch.chdir(tmp_path)
    assert [each.pid for each in processes_of(Path("b"))] == [other.pid]
    own = psutil.Process()
    assert own.pid not in {each.pid for each in processes_of(tmp_path / "b")}


def test_a_folder_is_not_tidied_up_while_an_orphan_works_in_it(
    tmp_path: Path, started: "list[subprocess.Popen[str]]"
) -> None:
    orphan = run(started, tmp_path, PATIENT, "hpc_lpm", "campaign", "launch")
    sentence = f"by process {orphan.pid}, .* left running: wait for it"
    with pytest.raises(InputError, match=sentence), no_driver(tmp_path):
        pytest.fail("the folder is in use")
    assert orphan.poll() is None
