"""The attempts at a trial: its ranks are started, judged, and started again while that is worth it.

A driver and Slurm make attempts of their own; a record of all is kept with the trial.
"""

import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hpc_lpm.campaign.environment import CHECKOUT, describe_source
from hpc_lpm.campaign.kept_model import keep_model
from hpc_lpm.campaign.launch_records import (
    Attempt,
    Launch,
    begin_attempt,
    end_attempt,
    read_attempts,
)
from hpc_lpm.campaign.progress_line import ProgressLine
from hpc_lpm.campaign.rank_start import Start
from hpc_lpm.campaign.restarts import HEADING, no_progress_of_jobs
from hpc_lpm.campaign.run_log import read_run_log
from hpc_lpm.campaign.starting_again import StartAgain
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.cluster.allocation import signals_of_job_script
from hpc_lpm.cluster.supervisor import CommandOutcome, Forwarding, supervise
from hpc_lpm.engine.checkpoint.store import FOLDER, newest_checkpoint
from hpc_lpm.engine.result import RESULT
from hpc_lpm.errors import EXIT_INTERRUPTED
from hpc_lpm.programs import ask

RANKS_LOST = 71
"""Exit code of a trial whose launcher reports success although there is no result.

Open MPI's mpirun does that when a node with ranks has been taken away.
"""

ATTEMPTS = "attempts.json"
"""The file in the folder of a run that tells of its attempts."""

REAL_FAILURES = frozenset({1, 2, 70})
"""Exit codes of failures that would happen again: of training, of its input, of the program."""


def train_until_done(
    steps: Steps,
    name: str,
    start: Start,
    again: StartAgain,
    log: Path,
    say: Callable[[str], None],
    call: str | None,
) -> int:
    """Train a trial, starting its ranks again as long as that is worth it; return its exit code."""
    folder, progress = steps.folder.run(name), ProgressLine(steps, name)
    record, restart = folder / ATTEMPTS, 0
    # mpirun passes this signal on to all ranks and keeps running, unlike SIGTERM.
    forwarding = Forwarding(stop_signal=signal.SIGUSR2)
    following: Start | None = start
    with signals_of_job_script(), forwarding:
        while following is not None:
            start, before = following, _version_of(folder / RESULT)
            attempt = Attempt(
                started=datetime.now(UTC),
                job_id=start.where.job_id,
                nodes=start.where.nodes,
                call=call,
                planned_for=start.planned_for,
                restart=restart,
            )
            goes_on = newest_checkpoint(folder / FOLDER) is not None
            steps_done = _steps_done(folder)
            attempts = begin_attempt(record, attempt, goes_on=goes_on, step=steps_done)
            done = supervise(
                start.command,
                start.environment,
                start.ranks,
                log,
                say=say,
                progress=progress.line,
                ranks_within_seconds=steps.settings(name).receive_timeout_seconds,
                forwarding=forwarding,
                heading=f"{HEADING}{again.reason}" if restart else None,
            )
            done = _judged(steps, name, done, before, log, say)
            steps_done = _steps_done(folder)
            attempts = end_attempt(record, attempts, done.ended, done.exit_code, steps_done)
            restart, following = restart + 1, again.after(done, start, attempts)
            if following is not None and forwarding.received:
                # It came while no rank was there, and what they had saved is all there is.
                came = forwarding.received[0].name
                done = replace(done, exit_code=EXIT_INTERRUPTED, stopped_by=came)
                following = None
    Launch.of(done, start.where, attempts, describe_source(CHECKOUT)).write(folder / "launch.json")
    say(progress.closing_line(done.exit_code))
    if (job := start.where.job_id) is not None:
        time_was_up = done.exit_code == EXIT_INTERRUPTED and done.stopped_by == "SIGUSR2"
        stuck = no_progress_of_jobs(attempts, call)
        if time_was_up and stuck is not None:
            say(
                f"{name} does not go back into the queue: {stuck}: give it more time "
                "(resources.runtime_minutes)"
            )
        elif time_was_up or again.needs_other_nodes:
            _continue_later(job, say)
    return done.exit_code


def would_fail_again(
    folder: Path,
    name: str,
    log: Path,
    say: Callable[[str], None],
    attempt: int,
    call: str | None,
) -> int | None:
    """Say that another attempt at a trial is in vain, and return its exit code; None if it may be.

    This driver has made `attempt` - 1 of them by itself; Slurm may have made more of a job.
    """
    earlier = read_attempts(folder / ATTEMPTS, _steps_done(folder))
    if not earlier or earlier[-1].exit_code == 0:
        return None
    code = earlier[-1].exit_code
    if attempt > 1 and code in REAL_FAILURES:
        say(f"{name} failed with exit code {code} and would again: see {log}")
        return code
    stuck = no_progress_of_jobs(earlier, call)
    if stuck is None:
        return None
    say(f"{name} is not started: {stuck}: see {log}")
    return code or RANKS_LOST


def _steps_done(folder: Path) -> int:
    """Return how many optimizer steps a run has logged, of which the last may have to be redone."""
    return len(read_run_log(folder / "metrics.jsonl").step_seconds)


def _judged(
    steps: Steps,
    name: str,
    done: CommandOutcome,
    before: tuple[int, int] | None,
    log: Path,
    say: Callable[[str], None],
) -> CommandOutcome:
    """Return how an attempt has ended by what it has written; `before` was its result's version."""
    written = _version_of(steps.folder.run(name) / RESULT)
    if done.exit_code == 0 and written is None:
        say(f"{name} ended without a result, as if a node were gone: see {log}")
        return replace(done, exit_code=RANKS_LOST)
    if done.exit_code and written not in (None, before):
        say(f"{name} ended with exit code {done.exit_code} after its result was written: see {log}")
        done = replace(done, exit_code=0)
    if done.exit_code == 0:
        return replace(done, exit_code=keep_model(steps, name, say))
    return done


def _version_of(result: Path) -> tuple[int, int] | None:
    """Return what tells one writing of a file from another, None if it is not there."""
    try:
        found = result.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _continue_later(job: str, say: Callable[[str], None]) -> None:
    """Have Slurm run this job again, because its time limit was too short.

    Where the site forbids that, the driver submits another job.
    """
    answer = ask(["scontrol", "requeue", job])
    said = "goes back into the queue" if answer.done else f"is not requeued ({answer.complaint()})"
    say(f"Slurm job {job} {said}, its checkpoint is saved")
