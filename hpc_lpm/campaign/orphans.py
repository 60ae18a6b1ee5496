"""Trainings that have outlived the driver of their campaign, on the machine of the next driver.

Whatever a driver starts has the folder of the campaign in its environment, by which the next driver
knows it, however its own parents have ended.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from hpc_lpm.cluster.supervisor import GRACE_SECONDS
from hpc_lpm.programs import kill, processes_with

_VARIABLE = "HPC_LPM_CAMPAIGN_FOLDER"
_LAUNCHING, _TRAINING = ["hpc_lpm", "campaign"], ["hpc_lpm", "train"]
_MORE_SECONDS = 10.0
"""How much longer than its ranks a launcher may take to end."""


def mark(environment: MutableMapping[str, str], root: Path) -> None:
    """Have all that is started with `environment` known as work on the campaign in `root`."""
    environment[_VARIABLE] = os.path.realpath(root)


def processes_of(root: Path) -> list[psutil.Process]:
    """Return the processes on this machine that work on the campaign, but for this one's own."""
    folder, here = os.path.realpath(root), psutil.Process()
    own = {here.pid, *(parent.pid for parent in here.parents())}
    return [each for each in processes_with(_VARIABLE, folder) if each.pid not in own]


def end_orphans(
    root: Path, say: Callable[[str], None], grace_seconds: float = GRACE_SECONDS + _MORE_SECONDS
) -> None:
    """Have trainings without a driver save their progress and end; call it with the lock held.

    Args:
        root: the folder of the campaign.
        say: called with a line for the user if there are any.
        grace_seconds: how long they may take, before they are killed.
    """
    left = processes_of(root)
    if not left:
        return
    asked = _with(left, _LAUNCHING) or _with(left, _TRAINING)
    shown = ", ".join(str(process.pid) for process in asked or left)
    say(f"ending what a driver that is gone has left running, once it is saved: process {shown}")
    for process in asked:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + (grace_seconds if asked else 0.0)
    while (left := processes_of(root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill(left)


def _with(processes: Sequence[psutil.Process], words: Sequence[str]) -> list[psutil.Process]:
    """Return the processes whose command has these words next to each other."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            command = process.cmdline()
            pairs = itertools.pairwise(command)
            if any(list(pair) == words for pair in pairs):
                found.append(process)
    return found
