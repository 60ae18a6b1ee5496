"""Processes that load ahead: only so many, ended by a signal while they start, never left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.loading import check_processes
from hpc_lpm.errors import InputError

register([])

TRAIN = [
    *("train", "--model", "mlp,layers=3,width=8", "--dataset", "digits,size=8"),
    *("--batch-size", "64", "--steps", "1000000", "--checkpoint-epochs", "0"),
]
MINUTES = 120


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MINUTES
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def loading_for(rank: psutil.Process) -> list[psutil.Process]:
    found = []
    for each in rank.children():
        with suppress(psutil.NoSuchProcess):  # others come and go meanwhile
            if "spawn_main" in " ".join(each.cmdline()):
                found.append(each)
    return found


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[psutil.Popen]:
    command = [*TRAIN, "--loader-workers", "2", "--out", str(tmp_path / "run")]
    started = psutil.Popen(
        [sys.executable, "-m", "hpc_lpm", *command],
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "said").open("w"),
    )
    processes: list[psutil.Process] = []

    def loading() -> bool:
        processes[:] = loading_for(started)
        return len(processes) == 2

    try:
        until(loading)
        yield started
    finally:
        for each in (started, *processes):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        started.wait()


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("trains", [False, True], ids=["starting", "training"])
def test_they_end_with_their_rank(
    name: str, trains: bool, rank: psutil.Popen, tmp_path: Path
) -> None:
    processes = loading_for(rank)
    if trains:
        log = tmp_path / "run" / "metrics.jsonl"
        until(lambda: log.exists() and bool(log.read_text()))
    os.kill(rank.pid, getattr(signal, name))
    code = rank.wait(MINUTES)
    assert code == (75 if name == "SIGTERM" else -signal.SIGKILL)
    until(lambda: all(map(is_gone, processes)))
    if name == "SIGTERM":
        assert "interrupted by SIGTERM" in (tmp_path / "said").read_text()


def test_more_than_a_machine_has_a_use_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert run_guarded(app, [*TRAIN, "--loader-workers", "17", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "--loader-workers is 17" in said
    assert "up to 16" in said
    check_processes(16)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    check_processes(512)
    with pytest.raises(InputError, match="up to 512"):
        check_processes(513)


def test_one_process_plays_so_many_ranks_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played = ("--strategy", "fbp", "--in-one-process", "--ranks", "100000")
    assert run_guarded(app, [*TRAIN, *played, "--out", str(tmp_path / "run")]) == 2
    assert "is to play 100000 ranks, accepted are up to 1,024" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--loader-workers", "--threads"])
def test_what_no_machine_has_a_use_for_is_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in ("1025", "100000"):
        assert run_guarded(app, [*TRAIN, option, number, "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "1024" in said
        assert number in said
