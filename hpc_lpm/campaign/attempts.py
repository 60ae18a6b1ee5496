"""Every start of a trial: one that was interrupted and continued has several.

They are kept in a file of their own, which Snakemake does not know of: it deletes what a rule
declares as its output when the rule fails or runs again.
"""

from datetime import datetime
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile


class Attempt(BaseModel):
    """One start; `ended` and `exit_code` are None while it runs, or if it could not say goodbye."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    started: datetime
    ended: datetime | None = None
    exit_code: int | None = None
    job_id: str | None = None
    nodes: tuple[str, ...] = ()


class AttemptRecord(VersionedFile):
    """`attempts.json`: the attempts at a trial, in their order."""

    kind: ClassVar[str] = "record of attempts"

    attempts: tuple[Attempt, ...] = ()


def begin_attempt(path: Path, attempt: Attempt) -> tuple[Attempt, ...]:
    """Add an attempt that starts now and return all; after one that ended well it is the first."""
    earlier = read_attempts(path)
    if earlier and earlier[-1].exit_code == 0:  # the trial is run anew
        earlier = ()
    return _write(path, (*earlier, attempt))


def end_attempt(
    path: Path, attempts: tuple[Attempt, ...], ended: datetime, exit_code: int
) -> tuple[Attempt, ...]:
    """Complete the last of `attempts` and return all."""
    last = attempts[-1].model_copy(update={"ended": ended, "exit_code": exit_code})
    return _write(path, (*attempts[:-1], last))


def _write(path: Path, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    AttemptRecord(attempts=attempts).write(path)
    return attempts


def read_attempts(path: Path) -> tuple[Attempt, ...]:
    """Return the attempts recorded in a file, none if it is not there."""
    try:
        return AttemptRecord.read(path).attempts
    except InputError:
        return ()
