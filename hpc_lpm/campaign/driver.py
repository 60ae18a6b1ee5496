"""The driver of a campaign: there is one at a time, and it ends the jobs that a dead one left."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter, ValidationError

from hpc_lpm.errors import InputError
from hpc_lpm.programs import ask

_GONE_SECONDS = 120.0
"""How long cancelled jobs may take to save their checkpoints and end."""
_QUEUE_SECONDS = 60.0
"""How long a busy controller may take to answer."""


@dataclass(frozen=True)
class Driver:
    """The process that submits a campaign's jobs, which all have the name `job_name` in Slurm."""

    process: int
    host: str
    slurm_job: str | None
    job_name: str | None

    @staticmethod
    def here(job_name: str | None) -> "Driver":
        """Describe this process."""
        job = os.environ.get("SLURM_JOB_ID")
        return Driver(os.getpid(), platform.node(), job, job_name)

    def __str__(self) -> str:
        within = f" (Slurm job {self.slurm_job})" if self.slurm_job else ""
        return f"process {self.process} on {self.host}{within}"


def take_over(root: Path, driver: Driver, say: Callable[[str], None]) -> IO[str]:
    """Return an open file that keeps other drivers of this campaign out until it is closed.

    The lock ends with the process that holds it, however that ends. A driver that was killed leaves
    jobs in the queue, which would train into the same folders as this driver's: they are cancelled
    and waited for. Their progress is kept in their checkpoints.

    Args:
        root: folder of the campaign.
        driver: this one.
        say: called with a line for the user if jobs are ended.

    Raises:
        InputError: if another driver works on the campaign.
    """
    stream, before = _lock(
        root, "wait for it, stop it, or give this campaign another name (--config name=...)"
    )
    if before is not None and before.job_name:
        _end_jobs(before.job_name, say)
    stream.truncate(0)
    stream.write(json.dumps(asdict(driver)) + "\n")
    stream.flush()
    return stream


@contextmanager
def no_driver(root: Path) -> Iterator[None]:
    """Keep drivers of a campaign out while the `with` block runs.

    Raises:
        InputError: if one works on the campaign.
    """
    stream, _ = _lock(root, "wait for it, or stop it")
    with stream:
        yield


def _lock(root: Path, what_to_do: str) -> tuple[IO[str], Driver | None]:
    """Return a file that is locked until it is closed, and the driver that locked it before."""
    path = root / ".driver"
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("a+", encoding="utf-8")
    stream.seek(0)
    before = _read(stream.read())
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        who = before or "another process"
        raise InputError(f"{root} is being worked on by {who}: {what_to_do}.") from None
    return stream, before


def _read(text: str) -> Driver | None:
    try:
        return TypeAdapter(Driver).validate_json(text)
    except ValidationError:
        return None


def _end_jobs(name: str, say: Callable[[str], None]) -> None:
    left = _jobs_named(name)
    if not left:
        return
    say(f"ending {len(left)} jobs of a driver that is gone: {', '.join(left)}")
    ask(["scancel", *left], seconds=_QUEUE_SECONDS)
    deadline = time.monotonic() + _GONE_SECONDS
    while _jobs_named(name) and time.monotonic() < deadline:
        time.sleep(1.0)


def _jobs_named(name: str) -> list[str]:
    command = ["squeue", "--noheader", f"--name={name}", "--format=%i"]
    return ask(command, seconds=_QUEUE_SECONDS).output.split()
