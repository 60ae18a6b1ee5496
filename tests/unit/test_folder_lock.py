"""One process holds the lock of a folder, with locks in the file system and without."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc_lpm.campaign import folder_lock
from hpc_lpm.campaign.folder_lock import FolderLock, InUseError

HOLD = """
import errno, fcntl, sys, time
from pathlib import Path
from hpc_lpm.campaign import folder_lock
if sys.argv[2] != "0":
    def flock(*_):
        raise OSError(int(sys.argv[2]), "no locks")
    fcntl.flock = flock
folder_lock.SIGNS_SECONDS = 0.05
held = folder_lock.FolderLock(Path(sys.argv[1]) / ".driver")
try:
    # Within it: what reads this line may have the process interrupted at once.
    print("held", flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    print("interrupted", flush=True)
held.close()
"""


def holder(folder: Path, error: int = 0) -> "subprocess.Popen[str]":
    """Start a process that holds the lock, where flock fails with `error` unless that is 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(error)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def without_locks(monkeypatch: pytest.MonkeyPatch, error: int = errno.ENOLCK) -> None:
    def flock(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("error", [0, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("own", [0, errno.ENOLCK])
def test_one_process_at_a_time_holds_it_whatever_locks_either_has(
    error: int, own: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = holder(tmp_path, error)
    if own:
        without_locks(monkeypatch, own)
    with pytest.raises(InUseError):
        FolderLock(tmp_path / ".driver")
    first.communicate("")
    assert first.returncode == 0
    FolderLock(tmp_path / ".driver").close()
    FolderLock(tmp_path / ".driver").close()
    assert [path.name for path in tmp_path.iterdir()] == [".driver"]


@pytest.mark.parametrize("error", [0, errno.ENOLCK])
def test_what_a_killed_process_has_held_is_free_at_once_on_its_machine(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = holder(tmp_path, error)
    first.kill()
    first.communicate()
    assert (tmp_path / ".driver.held").exists()
    if error:
        without_locks(monkeypatch, error)
    FolderLock(tmp_path / ".driver").close()
    assert [path.name for path in tmp_path.iterdir()] == [".driver"]


def test_a_holder_on_another_host_is_gone_once_it_gives_no_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch)
    monkeypatch.setattr(folder_lock, "SIGNS_SECONDS", 0.05)
    held = tmp_path / ".driver.held"
    held.mkdir()
    sign = held / "sign-of-life.json"
    sign.write_text(
        json.dumps(
            {"token": "a", "host": "elsewhere", "process": 1, "began": "b 1", "locked": False}
        )
    )
    with pytest.raises(InUseError):
        FolderLock(tmp_path / ".driver")
    long_ago = time.time() - folder_lock.GONE_SECONDS - 5
    os.utime(sign, (long_ago, long_ago))
    FolderLock(tmp_path / ".driver").close()
    assert [path.name for path in tmp_path.iterdir()] == [".driver"]
    # Of a holder that was killed before it could say who it is, the folder's own time counts.
    held.mkdir()
    with pytest.raises(InUseError):
        FolderLock(tmp_path / ".driver")
    os.utime(held, (long_ago, long_ago))
    FolderLock(tmp_path / ".driver").close()


def test_a_living_holder_gives_signs_of_life(tmp_path: Path) -> None:
    first = holder(tmp_path, errno.ENOLCK)
    sign = tmp_path / ".driver.held" / "sign-of-life.json"
    os.utime(sign, (1, 1))
    deadline = time.monotonic() + 60
    while sign.stat().st_mtime < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sign.stat().st_mtime > 2
    first.communicate("")


@pytest.mark.parametrize("jump_seconds", [-86400.0, 86400.0])
def test_a_clock_that_is_set_frees_no_lock_that_is_held_and_keeps_none_that_is_not(
    jump_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch)
    # Of the many that the holder gives meanwhile, one is enough.
    monkeypatch.setattr(folder_lock, "SIGNS_SECONDS", 1.0)
    now = FolderLock._now
    monkeypatch.setattr(FolderLock, "_now", lambda lock: now(lock) + jump_seconds)
    first = holder(tmp_path, errno.ENOLCK)
    # Where it cannot be asked if its process lives.
    sign = tmp_path / ".driver.held" / "sign-of-life.json"
    aside = sign.with_suffix(".aside")
    aside.write_text(sign.read_text().replace(f'"{os.uname().nodename}"', '"elsewhere"'))
    aside.replace(sign)
    with pytest.raises(InUseError):
        FolderLock(tmp_path / ".driver")
    first.kill()
    first.communicate()
    monkeypatch.setattr(folder_lock, "SIGNS_SECONDS", 0.05)
    FolderLock(tmp_path / ".driver").close()


def test_a_holder_that_was_taken_for_gone_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = holder(tmp_path, errno.ENOLCK)
    os.kill(first.pid, signal.SIGSTOP)
    os.waitpid(first.pid, os.WUNTRACED)  # it gives no sign of life any more
    try:
        without_locks(monkeypatch)
        monkeypatch.setattr(folder_lock, "SIGNS_SECONDS", 0.05)
        sign = tmp_path / ".driver.held" / "sign-of-life.json"
        os.utime(sign, (1, 1))
        second = FolderLock(tmp_path / ".driver")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.wait(timeout=60)
    output, errors = first.communicate()
    assert output == "interrupted\n"
    assert f"another process has taken over {tmp_path}" in errors
    with pytest.raises(InUseError):
        FolderLock(tmp_path / ".driver")
    second.close()


def test_a_folder_that_cannot_be_written_to_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        FolderLock(tmp_path / "file" / ".driver")
