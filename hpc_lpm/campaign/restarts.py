"""Whether a trial whose ranks have ended early is started again: what ended them, and how far.

A restart is worth its time if it gets further than those before. The ranks of a fault of the user's
code fall over it again, at the same step; a device that is gone stays away. So an attempt counts as
fruitless if it has made no step beyond those that were made before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hpc_lpm.campaign.launch_records import Attempt
from hpc_lpm.campaign.runs import OURS
from hpc_lpm.cluster.supervisor import CommandOutcome
from hpc_lpm.errors import EXIT_INTERRUPTED

MOST_FRUITLESS = 2
"""How many attempts in a row may be fruitless before a trial ends for good."""


class Ending(Enum):
    """How the ranks of a trial have ended."""

    DONE = "are done"
    REFUSED = "have refused their input"
    STOPPED = "were asked to stop"
    FAILED = "failed"
    LOST = "were lost"


_BY_CODE = {
    0: Ending.DONE,
    1: Ending.FAILED,
    2: Ending.REFUSED,
    70: Ending.FAILED,
    EXIT_INTERRUPTED: Ending.STOPPED,
}
"""What ranks say by their exit code; others are those of signals, launchers and of lost nodes."""

HANGS = "hangs or is gone"
"""What every sentence of a wait in vain says of the rank that was waited for."""

HEADING = "--- "
"""Begins the line in the log of a trial that comes before what a restart has said."""


def ending_of(outcome: CommandOutcome, log: Path) -> Ending:
    """Return how the ranks of a command have ended, whose output is the last in a log.

    A wait in vain for a rank that hangs has the exit code of an exception in a layer.
    """
    if outcome.stopped_by is not None and outcome.exit_code:
        return Ending.STOPPED
    found = _BY_CODE.get(outcome.exit_code, Ending.LOST)
    return Ending.LOST if found is Ending.FAILED and _waited_in_vain(log) else found


def _waited_in_vain(log: Path) -> bool:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    said = text.rpartition(f"\n{HEADING}")[2].splitlines()
    return any(line.startswith(OURS) and HANGS in line for line in said)


def fruitless(attempts: Sequence[Attempt], ours: int) -> int:
    """Return how many of the last attempts, in a row, have made no step that was not made before.

    One whose steps nobody knows counts as fruitful.

    Args:
        attempts: all attempts at a trial.
        ours: how many of the last ones count; others were made by calls that somebody has ended.
    """
    count = furthest = 0
    for attempt in attempts:
        gets_further = attempt.step is None or attempt.step > furthest
        count = 0 if gets_further else count + 1
        furthest = max(furthest, attempt.step or 0)
    return min(count, ours)


def no_progress(attempts: Sequence[Attempt], ours: int, what: str = "attempts") -> str | None:
    """Say that a trial gets no further, as a clause; None if it does, or may."""
    if fruitless(attempts, ours) < MOST_FRUITLESS:
        return None
    furthest = max(each.step or 0 for each in attempts)
    return (
        f"{MOST_FRUITLESS} {what} in a row have made no step beyond step {furthest}, so that "
        "another one would make no progress either"
    )


def no_progress_of_jobs(attempts: Sequence[Attempt], call: str | None) -> str | None:
    """Say that the jobs which a call of Snakemake gave a trial get no further; None if they may.

    The restarts within a job count as one with it: another job may have other nodes.
    """
    jobs: list[Attempt] = []
    for attempt in attempts:
        known = [attempt.step]
        if attempt.restart and jobs:
            known.append(jobs.pop().step)
        furthest = max((step for step in known if step is not None), default=None)
        jobs.append(attempt.model_copy(update={"step": furthest}))
    others = [number for number, each in enumerate(jobs, 1) if each.call != call]
    ours = 0 if call is None else len(jobs) - max(others, default=0)
    return no_progress(jobs, ours, "jobs")


@dataclass(frozen=True)
class Restart:
    """What follows from an attempt: whether the trial starts again, and a clause that says why.

    `gone` tells that a device seems to be gone for good, since ranks were lost twice at one step.
    """

    again: bool
    why: str
    gone: bool = False


def restart_after(ending: Ending, attempts: Sequence[Attempt], restarts: int) -> Restart:
    """Return what follows from the last attempt, whose ranks failed or were lost.

    Args:
        ending: how its ranks have ended: `FAILED` or `LOST`.
        attempts: all attempts at the trial, the last one included.
        restarts: how many restarts of a launch are allowed.
    """
    last = attempts[-1]
    done, ours = last.restart, last.restart + 1
    count = fruitless(attempts, ours)
    where = f"after step {last.step}" if last.step else "before the first step"
    what = f"its ranks {ending.value} {where} (exit code {last.exit_code})"
    gone = ending is Ending.LOST and count > 0 and done < restarts
    if ending is Ending.FAILED and count:
        again = "as they would again" if ours == 1 else "and had come as far before"
        return Restart(False, f"{what}, {again}: a restart would make no progress")
    if clause := no_progress(attempts, ours):
        return Restart(False, f"{what}: {clause}", gone)
    if done >= restarts:
        used = f", and all of {restarts} restarts are used up" if restarts else ""
        return Restart(False, f"{what}{used}")
    return Restart(True, f"{what}: restart {done + 1} of {restarts}", gone)
