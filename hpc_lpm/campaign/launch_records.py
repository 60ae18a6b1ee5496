"""The records that starting a step leaves behind: `launch.json`, and `attempts.json` of a trial.

The attempts of a trial are kept in a file of their own, which Snakemake does not know of: it
deletes what a rule declares as its output when the rule fails or runs again.
"""

from datetime import datetime
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from hpc_lpm.cluster.machine import Machine
from hpc_lpm.cluster.rank_nodes import RankNodes
from hpc_lpm.cluster.slurm import SlurmJob
from hpc_lpm.cluster.supervisor import CommandOutcome
from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile


class Attempt(BaseModel):
    """One start of a trial.

    `ended` and `exit_code` are None while it runs, and for good if it was killed before it could
    record its end. `call` is the call of Snakemake that it was started by, None if unknown. `step`
    counts the optimizer steps that were done by its end, None where nobody knows. `planned_for` is
    the number of ranks that it was planned again for since devices were lost, None if none were.
    `restart` counts the starts of the same launch before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    started: datetime
    ended: datetime | None = None
    exit_code: int | None = None
    job_id: str | None = None
    nodes: tuple[str, ...] = ()
    call: str | None = None
    step: int | None = None
    planned_for: int | None = None
    restart: int = 0


class AttemptRecord(VersionedFile):
    """`attempts.json`: the attempts at a trial in the order in which they started."""

    kind: ClassVar[str] = "record of attempts"

    attempts: tuple[Attempt, ...] = ()


class Launch(VersionedFile):
    """`launch.json`: how a command was started, when and where, and how it ended.

    `attempts` are all starts of a trial, this one included; `machines` is the hardware of `nodes`;
    `stopped_by` names the first signal that was passed on to the command; `source` is the git
    revision of the toolkit and the hash of its changes, None where unknown; `planned_for` is the
    number of ranks that the trial was planned again for since a device was gone, None if none was.
    """

    kind: ClassVar[str] = "launch record"

    command: list[str]
    ranks: int
    started: datetime
    ended: datetime
    exit_code: int
    stopped_by: str | None = None
    nodes: tuple[str, ...] = ()
    slurm: SlurmJob | None = None
    machines: tuple[Machine, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    source: dict[str, str | bool | None] | None = None
    planned_for: int | None = None

    @property
    def seconds(self) -> float:
        """Seconds from start to end, start-up included."""
        return (self.ended - self.started).total_seconds()

    @classmethod
    def of(
        cls,
        outcome: CommandOutcome,
        where: RankNodes,
        attempts: tuple[Attempt, ...] = (),
        source: dict[str, str | bool | None] | None = None,
    ) -> Self:
        """Return the record of a command that has ended.

        Args:
            outcome: how it was started and how it ended.
            where: the nodes that its ranks ran on.
            attempts: all starts of the trial, this one included.
            source: the revision of the toolkit.
        """
        return cls(
            command=list(outcome.command),
            ranks=outcome.ranks,
            started=outcome.started,
            ended=outcome.ended,
            exit_code=outcome.exit_code,
            stopped_by=outcome.stopped_by,
            nodes=where.nodes,
            slurm=where.slurm,
            machines=where.machines,
            attempts=attempts,
            source=source,
            planned_for=fewest_ranks(attempts),
        )


def fewest_ranks(attempts: tuple[Attempt, ...]) -> int | None:
    """Return the fewest ranks that a trial was planned again for, None if it never was."""
    return min((each.planned_for for each in attempts if each.planned_for), default=None)


def begin_attempt(
    path: Path, attempt: Attempt, *, goes_on: bool = False, step: int | None = None
) -> tuple[Attempt, ...]:
    """Record the start of an attempt and return all attempts.

    After an attempt that ended well the trial is being run anew, so that this is the first one,
    unless it `goes_on` from where that one ended. `step` is what the trial has done by now.
    """
    earlier = read_attempts(path, step)
    if earlier and earlier[-1].exit_code == 0 and not goes_on:
        earlier = ()
    return _write(path, (*earlier, attempt))


def end_attempt(
    path: Path,
    attempts: tuple[Attempt, ...],
    ended: datetime,
    exit_code: int,
    step: int | None = None,
) -> tuple[Attempt, ...]:
    """Record the end of the last of `attempts`, after so many steps, and return all of them."""
    changed = {"ended": ended, "exit_code": exit_code, "step": step}
    return _write(path, (*attempts[:-1], attempts[-1].model_copy(update=changed)))


def read_attempts(path: Path, step: int | None = None) -> tuple[Attempt, ...]:
    """Return the attempts recorded in a file, or none if it is not there.

    `step` is what the trial has done by now: the last attempt has, if it could not record that.
    """
    try:
        attempts = AttemptRecord.read(path).attempts
    except InputError:
        return ()
    if attempts and attempts[-1].step is None:
        attempts = (*attempts[:-1], attempts[-1].model_copy(update={"step": step}))
    return attempts


def _write(path: Path, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    AttemptRecord(attempts=attempts).write(path)
    return attempts
