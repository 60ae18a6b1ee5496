"""The folder that holds a run's checkpoints, and how one of them comes into it: all or nothing."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from hpc_lpm.engine.history import History

FOLDER = "checkpoint"
_ASIDE = "."
_PENDING = "-before-evaluation"
_NAME = re.compile(rf"step-(\d+)({_PENDING})?")


def checkpoint_name(history: History, *, evaluation_is_due: bool) -> str:
    """Return the name of the checkpoint of this place in a training."""
    return f"step-{history.step}{_PENDING if evaluation_is_due else ''}"


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint, or None; those under way or left behind do not count."""
    found = []
    for path in folder.glob("step-*"):
        if match := _NAME.fullmatch(path.name):
            found.append((int(match[1]), match[2] is None, path))
    return max(found)[2] if found else None


def begin_aside(path: Path) -> Path:
    """Return a new, empty folder beside `path` to write into; what crashes left there is removed.

    Raises:
        OSError: if it cannot be made.
    """
    for left in path.parent.glob(f"{_ASIDE}step-*"):
        shutil.rmtree(left)
    aside = aside_of(path)
    aside.mkdir(parents=True)
    return aside


def aside_of(path: Path) -> Path:
    """Return where the checkpoint `path` is written before it gets its name."""
    return path.with_name(f"{_ASIDE}{path.name}.partial")


def publish(path: Path) -> None:
    """Give a checkpoint that lies whole on the disk its name, then remove the older ones.

    Raises:
        OSError: if that fails; the older ones are then still there.
    """
    aside = aside_of(path)
    sync(aside)
    aside.rename(path)
    sync(path.parent)
    for other in path.parent.glob("step-*"):
        if other != path:
            shutil.rmtree(other)


def remove_checkpoints(folder: Path) -> None:
    """Remove the folder with all that is in it, if it is there."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def sync(path: Path) -> None:
    """Have a file or a folder written to the disk.

    Raises:
        OSError: if it cannot be.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
