"""Ends a rank whose launcher is gone, or the program that supervises the launcher.

A launcher that is killed leaves its ranks behind: they would go on training into a folder in which
the next attempt begins. Such a rank ends at once; what it has saved is there.
"""

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from hpc_lpm.programs import beginning_of
from hpc_lpm.ranks import started_by_launcher

_SUPERVISOR = "HPC_LPM_SUPERVISOR"
_SECONDS_BETWEEN_LOOKS = 1.0


def supervised(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a launcher that is not to outlive this process."""
    own = os.getpid()
    return {**environment, _SUPERVISOR: f"{platform.node()} {own} {beginning_of(own)}"}


def watch_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Watch, in a thread, over the launcher of this process and its supervisor, if it has any.

    Call it before anything that takes long.
    """
    parent = os.getppid() if started_by_launcher() else None
    supervisor = _supervisor_here(environment)
    if parent is None and supervisor is None:
        return
    threading.Thread(
        target=_watch, args=(parent, supervisor), name="launcher watch", daemon=True
    ).start()


def _supervisor_here(environment: Mapping[str, str]) -> tuple[int, str] | None:
    """Return number and beginning of the supervisor, None if it is not on this machine."""
    host, _, rest = environment.get(_SUPERVISOR, "").partition(" ")
    number, _, began = rest.partition(" ")
    if host != platform.node() or not number.isdigit():
        return None
    # Within a container its number may be that of another process.
    return (int(number), began) if beginning_of(int(number)) == began else None


def _watch(parent: int | None, supervisor: tuple[int, str] | None) -> None:
    while True:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        if parent is not None and os.getppid() != parent:
            _end("the launcher of this rank is gone")
        if supervisor is not None and beginning_of(supervisor[0]) != supervisor[1]:
            _end(f"process {supervisor[0]}, which supervised the launcher of this rank, is gone")


def _end(why: str) -> None:
    with suppress(OSError):  # nobody may be there to read it
        line = f"hpc-lpm: {why}: it ends; start it again, with --resume if it trains.\n"
        os.write(sys.stderr.fileno(), line.encode())
    os.kill(os.getpid(), signal.SIGKILL)
