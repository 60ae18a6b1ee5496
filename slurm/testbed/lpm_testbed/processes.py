"""Starts processes, records their numbers and start times, and ends them by these."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lpm_testbed.errors import TestbedError

_PATIENCE_SECONDS = 10.0


def start(
    name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Start a process that outlives this one and writes its output to `folder`/log/NAME.out.

    Raises:
        TestbedError: if the program cannot be started.
    """
    log = folder / "log" / f"{name}.out"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                close_fds=True,
                cwd="/",
                env=environment,
            )
        except OSError as error:
            raise TestbedError(f"{command[0]} cannot be started ({error.strerror}).") from None
    record = folder / "pid" / name
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(f"{child.pid} {_birth(child.pid)}\n", encoding="ascii")


def running(name: str, folder: Path) -> int | None:
    """Return the number of the process that was started under that name, None if it is gone."""
    try:
        pid, birth = (folder / "pid" / name).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    # Numbers are reused, so a process is identified by its start time as well.
    return int(pid) if birth == _birth(int(pid)) and birth != "0" else None


def started(folder: Path) -> list[str]:
    """Return the names under which processes were started."""
    records = folder / "pid"
    return sorted(path.name for path in records.iterdir()) if records.is_dir() else []


def end(pids: Iterable[int], *, at_once: bool = False) -> None:
    """Ask processes to end and kill those that do not; with `at_once` kill them all."""
    pids = list(pids)
    for number in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (pids := [pid for pid in pids if _alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not pids:
            return


def _alive(pid: int) -> bool:
    return _state(pid) not in ("", "Z")


def _state(pid: int) -> str:
    fields = _fields(pid)
    return fields[0] if fields else ""


def _birth(pid: int) -> str:
    """Return when the process started, in ticks since the machine did; 0 if it is gone."""
    fields = _fields(pid)
    return fields[19] if fields and fields[0] != "Z" else "0"


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name, empty if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
