"""The driver of a campaign: there is one at a time, and it ends what a dead one has left."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hpc_lpm.campaign.folder_lock import FolderLock, InUseError
from hpc_lpm.campaign.orphans import end_orphans, processes_of
from hpc_lpm.errors import InputError
from hpc_lpm.programs import Answer, ask, installed

_RECORD = ".driver"
"""The file in the folder of a campaign that is locked, and tells of its last driver."""
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


def take_over(root: Path, driver: Driver, say: Callable[[str], None]) -> FolderLock:
    """Return a lock that keeps other drivers of this campaign out until it is closed.

    The lock ends with the process that holds it, however that ends. A driver that was killed leaves
    jobs in the queue and trainings on its machine, which would train into the same folders as this
    driver's: they are told to save their progress, and ended.

    Args:
        root: folder of the campaign.
        driver: this one.
        say: called with a line for the user if something is ended.

    Raises:
        InputError: if another driver works on the campaign, its folder cannot be written to, Slurm
            does not tell what the one before has left in its queue, or that does not end.
    """
    lock, before = _lock(
        root, "wait for it, stop it, or give this campaign another name (--config name=...)"
    )
    try:
        if before is not None and before.job_name:
            _end_jobs(root, before.job_name, say)
        end_orphans(root, say)
    except BaseException:
        lock.close()  # the next driver finds the record of the one before
        raise
    lock.stream.truncate(0)
    lock.stream.write(json.dumps(asdict(driver)) + "\n")
    lock.stream.flush()
    return lock


@contextmanager
def no_driver(root: Path) -> Iterator[None]:
    """Keep drivers of a campaign out while the `with` block runs.

    Raises:
        InputError: if one works on the campaign, or something that one has started, or Slurm does
            not tell.
    """
    lock, before = _lock(root, "wait for it, or stop it")
    with closing(lock):
        if before is not None and before.job_name and (jobs := _jobs_left(root, before.job_name)):
            raise InputError(
                f"{root} is being worked on by Slurm jobs which a driver that is gone has left "
                f"({', '.join(jobs)}): wait for them, or end them (scancel {' '.join(jobs)})."
            )
        if left := processes_of(root):
            raise InputError(
                f"{root} is being worked on by process {left[0].pid}, which a driver that is gone "
                "has left running: wait for it, or stop it."
            )
        yield


def _lock(root: Path, what_to_do: str) -> tuple[FolderLock, Driver | None]:
    """Return a lock that is held until it is closed, and the driver that held it before."""
    path = root / _RECORD
    try:
        lock = FolderLock(path)
    except InUseError:
        who = _read(path.read_text(encoding="utf-8")) or "another process"
        raise InputError(f"{root} is being worked on by {who}: {what_to_do}.") from None
    except OSError as error:
        raise InputError(
            f"{root} cannot be locked, since {error.filename or path} cannot be written "
            f"({error.strerror}): mend it, or run the campaign where you can write."
        ) from None
    lock.stream.seek(0)
    return lock, _read(lock.stream.read())


def _read(text: str) -> Driver | None:
    try:
        return TypeAdapter(Driver).validate_json(text)
    except ValidationError:
        return None


def _end_jobs(root: Path, name: str, say: Callable[[str], None]) -> None:
    left = _jobs_left(root, name)
    if not left:
        return
    say(f"ending {len(left)} jobs of a driver that is gone: {', '.join(left)}")
    ask(["scancel", *left], seconds=_QUEUE_SECONDS)
    deadline = time.monotonic() + _GONE_SECONDS
    while time.monotonic() < deadline:
        asked = _ask_for_jobs(name)
        if asked.done:
            left = asked.output.split()
            if not left:
                return
        time.sleep(1.0)
    # They would train into the same folders as the jobs of this driver.
    raise InputError(
        f"{root} may still be worked on by Slurm jobs of a driver that is gone "
        f"({', '.join(left)}), which have not ended within {_GONE_SECONDS:.0f} s of scancel: wait "
        f"until squeue no longer lists them, or, if nothing of them runs, remove {root / _RECORD}."
    )


def _jobs_left(root: Path, name: str) -> list[str]:
    """Return the jobs that a driver which is gone has left in the queue.

    Raises:
        InputError: if Slurm does not tell.
    """
    asked = _ask_for_jobs(name)
    if not asked.done and installed("squeue"):
        raise InputError(
            f"{root} may still be worked on by jobs of a driver that is gone, which squeue does "
            f"not tell ({asked.complaint()}): wait until it answers, or, if none of them is left, "
            f"remove {root / _RECORD}."
        )
    return asked.output.split()


def _ask_for_jobs(name: str) -> Answer:
    command = ["squeue", "--noheader", f"--name={name}", "--format=%i"]
    return ask(command, seconds=_QUEUE_SECONDS)
