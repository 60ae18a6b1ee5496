"""Runs one step of a campaign on its ranks, records how it went, and stops it in good order."""

import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shutil import rmtree

from hpc_lpm.campaign.calls import Call
from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.environment import CHECKOUT, describe_source
from hpc_lpm.campaign.identity import IDENTITY, Identity, result_settings
from hpc_lpm.campaign.launch_records import (
    Attempt,
    Launch,
    begin_attempt,
    end_attempt,
    read_attempts,
)
from hpc_lpm.campaign.progress_line import ProgressLine
from hpc_lpm.campaign.restarts import HEADING, no_progress_of_jobs
from hpc_lpm.campaign.run_log import read_run_log
from hpc_lpm.campaign.shared_launch import LAUNCH as SHARED_LAUNCH
from hpc_lpm.campaign.shared_launch import SharedFolder, Turn, Turns
from hpc_lpm.campaign.shorter_runs import copy_progress, shorter_run
from hpc_lpm.campaign.starting_again import Start, StartAgain
from hpc_lpm.campaign.steps import WEIGHTS, Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.cluster.allocation import check_allocation, signals_of_job_script, with_allocation
from hpc_lpm.cluster.container import Container
from hpc_lpm.cluster.launchers import (
    launcher_options,
    options_on_nodes,
    rank_command,
    rank_environment,
)
from hpc_lpm.cluster.rank_nodes import find_rank_nodes
from hpc_lpm.cluster.supervisor import CommandOutcome, Forwarding, supervise
from hpc_lpm.engine.checkpoint.store import FOLDER, newest_checkpoint
from hpc_lpm.engine.result import RESULT
from hpc_lpm.errors import EXIT_INTERRUPTED, InputError
from hpc_lpm.files import write_text_atomically
from hpc_lpm.programs import ask

RANKS_LOST = 71
"""Exit code of a trial whose launcher reports success although there is no result.

Open MPI's mpirun does that when a node with ranks has been taken away.
"""

EXIT_NOT_KEPT = 2
"""Exit code of a trial whose weights could not be written where the campaign keeps them."""

ATTEMPTS = "attempts.json"
"""The file in the folder of a run that tells of its attempts."""

REAL_FAILURES = frozenset({1, 2, 70})
"""Exit codes of failures that would happen again: of training, of its input, of the program."""


def launch_step(
    campaign: Campaign,
    arguments: Sequence[str],
    ranks: int,
    mpi: str,
    log: Path,
    say: Callable[[str], None],
    *,
    outside: bool = False,
) -> int:
    """Run a step other than a trial, pass its output on to `say`, and return its exit code.

    Args:
        campaign: the campaign.
        arguments: what its ranks run, as arguments of `hpc-lpm`.
        ranks: how many there are.
        mpi: what starts them.
        log: the file that their output goes to.
        say: called with each line for the user.
        outside: whether it runs outside of the site's container, as the driver does.

    Raises:
        InputError: if the ranks cannot be started.
    """
    container = None if outside else Container.of_jobs()
    start = _prepare(campaign, arguments, ranks, mpi, threads=1, container=container)
    with signals_of_job_script():
        done = supervise(
            start.command,
            start.environment,
            ranks,
            log,
            say=say,
            ranks_within_seconds=campaign.receive_timeout_seconds,
        )
    Launch.of(done, start.where).write(log.with_suffix(".launch.json"))
    return done.exit_code


def launch_trial(
    steps: Steps,
    name: str,
    arguments: Sequence[str],
    ranks: int,
    mpi: str,
    log: Path,
    say: Callable[[str], None],
    *,
    attempt: int = 1,
    call: Call | None = None,
    restarts: int | None = None,
    elastic: bool = False,
) -> int:
    """Train a trial, resume it if it has a checkpoint, and tell how far the campaign is.

    Leaves the records in the trial's folder and returns the exit code of training. Ranks that were
    lost are started again, from the last checkpoint. A driver repeats whatever failed, and
    `attempt` counts its attempts from 1; a trial that failed for a reason that has not gone away is
    not run a second time, nor is one whose jobs make no progress. A training that has written its
    result counts as done, however it ended.

    Args:
        steps: the campaign.
        name: the trial.
        arguments: what its ranks run, as arguments of `hpc-lpm`.
        ranks: how many there are.
        mpi: what starts them.
        log: the file that their output goes to.
        say: called with each line for the user.
        attempt: which attempt of this driver it is.
        call: the call of Snakemake that this is part of, None if it is part of none.
        restarts: how often ranks that were lost are started again; as the campaign says if None.
        elastic: whether fewer ranks go on if a device is gone for good, as the campaign may say.

    Raises:
        InputError: if the ranks cannot be started, or what the trial is computed from has changed
            since the call began.
    """
    folder = steps.folder.run(name)
    identifier = call.identifier if call else None
    failed_before = _would_fail_again(folder, name, log, say, attempt, identifier)
    if failed_before is not None:
        return failed_before
    trial = steps.trials[name]
    choice = steps.choice(trial)
    if choice is None and steps.tuning(trial):
        raise InputError(
            f"{steps.folder.tuned(trial)}, which has the settings of {name}, is not there or "
            "damaged: call snakemake, which makes it."
        )
    if call is not None:
        call.check_unchanged(name, steps.folder.root)
        identity = _identity_of(steps, name, call)
        identity.write(folder / IDENTITY)
        _go_on_from_shorter_run(steps, name, identity, say)
    if call is not None and steps.campaign.share_launch and ranks > 1:
        ended = _train_on_shared_ranks(steps, trial, ranks, mpi, log, say, call)
        if ended is not None:
            return ended
    settings = steps.settings(name)
    write_text_atomically(steps.folder.settings(name), settings.model_dump_json(indent=2) + "\n")
    style = choice.style if choice else None
    prepare = partial(
        _prepare,
        steps.campaign,
        arguments,
        mpi=mpi,
        threads=settings.threads,
        style=style,
        container=Container.of_jobs(),
    )
    again = StartAgain(
        steps,
        trial,
        lambda ranks, places: prepare(ranks, places=places),
        log,
        say,
        restarts=steps.campaign.restarts if restarts is None else restarts,
        elastic=elastic or steps.campaign.elastic,
    )
    return _train(steps, name, prepare(ranks), again, log, say, identifier)


def _train(
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


def _would_fail_again(
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
        return replace(done, exit_code=_keep_model(steps, name, say))
    return done


def _train_on_shared_ranks(
    steps: Steps,
    trial: Trial,
    ranks: int,
    mpi: str,
    log: Path,
    say: Callable[[str], None],
    call: Call,
) -> int | None:
    """Train a trial, and those that can share its ranks, unless an earlier launch has trained it.

    Returns its exit code, None if it is to be trained on ranks of its own: it is refused or has
    ended a shared launch.
    """
    name, folder = trial.name, steps.folder.run(trial)
    shared = SharedFolder(steps, call.identifier)
    if name in shared.failed():
        return None
    if not (shared.run(name) / RESULT).exists():
        waiting = shared.waiting(name)
        request = shared.root / f"{steps.folder.run_name(name)}.turns.json"
        documents = {each.name: steps.settings(each.name) for each in waiting}
        Turns(
            settings={each: found.model_dump(mode="json") for each, found in documents.items()},
            folders={each: str(shared.run(each)) for each in documents},
        ).write(request)
        choice = steps.choice(trial)
        start = _prepare(
            steps.campaign,
            ("campaign", "train-in-turn", str(request)),
            ranks,
            mpi,
            steps.settings(name).threads,
            choice.style if choice else None,
            Container.of_jobs(),
        )
        with signals_of_job_script():
            done = supervise(
                start.command,
                start.environment,
                ranks,
                log,
                say=say,
                ranks_within_seconds=steps.campaign.receive_timeout_seconds,
            )
        if done.stopped_by is not None:
            return EXIT_INTERRUPTED
        for each in waiting:
            if (shared.run(each.name) / RESULT).exists():
                Launch.of(done, start.where).write(shared.run(each.name) / SHARED_LAUNCH)
        turn = request.with_suffix(".turn.json")
        if done.exit_code:
            culprit = Turn.read(turn).running if turn.exists() else None
            shared.add_failed(culprit or name)
    if not shared.take_over(name):
        return None
    settings = steps.settings(name)
    write_text_atomically(steps.folder.settings(name), settings.model_dump_json(indent=2) + "\n")
    launch = Launch.read(folder / SHARED_LAUNCH)
    record = folder / ATTEMPTS
    attempt = Attempt(
        started=launch.started,
        job_id=launch.slurm.job_id if launch.slurm else None,
        nodes=launch.nodes,
        call=call.identifier,
    )
    attempts = end_attempt(record, begin_attempt(record, attempt), launch.ended, 0)
    kept = _keep_model(steps, name, say)
    # Of a launch that has ended with another trial, this one is done all the same.
    own = {"attempts": attempts, "source": describe_source(CHECKOUT), "exit_code": 0}
    launch.model_copy(update=own).write(folder / "launch.json")
    (folder / SHARED_LAUNCH).unlink()
    if not log.exists():
        write_text_atomically(log, f"trained on shared ranks: {shlex.join(launch.command)}\n")
    say(ProgressLine(steps, name).closing_line(kept))
    return kept


def _identity_of(steps: Steps, name: str, call: Call) -> Identity:
    """Return what a trial is computed from, with the settings that its tuning has chosen."""
    identity, choice = call.identities.runs[name], steps.choice(steps.trials[name])
    if choice is None:
        return identity
    return identity.chosen(result_settings(steps.settings(name)), choice.style)


def _go_on_from_shorter_run(
    steps: Steps, name: str, identity: Identity, say: Callable[[str], None]
) -> None:
    folder = steps.folder.run(name)
    if newest_checkpoint(folder / FOLDER) is not None:
        return
    shorter = shorter_run(steps.folder, name, identity, steps.settings(name))
    if shorter is None:
        return
    try:
        copy_progress(shorter, folder)
        say(f"{name} goes on from a copy of the checkpoint in {shorter}")
    except OSError as error:
        say(f"{name} starts from the beginning, since {shorter} cannot be copied ({error})")


def _keep_model(steps: Steps, name: str, say: Callable[[str], None]) -> int:
    """Keep of a trained model what the campaign asks for, and return the exit code."""
    folder, keep = steps.folder.run(name), steps.campaign.keep
    if "weights" in keep:
        # Imported here, because it imports torch.
        from hpc_lpm.engine.checkpoint.export import export_weights, write_weights

        try:
            exported = export_weights(folder, steps.settings(name).data_dir)
            write_weights(exported, folder / WEIGHTS)
        except InputError as error:
            say(f"the weights of {name} are not kept: {error}")
            return EXIT_NOT_KEPT
    if "checkpoints" not in keep:
        # Nobody needs it any more, and a campaign has many trials.
        rmtree(folder / FOLDER, ignore_errors=True)
    return 0


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


def _prepare(
    campaign: Campaign,
    arguments: Sequence[str],
    ranks: int,
    mpi: str,
    threads: int,
    style: str | None = None,
    container: Container | None = None,
    *,
    places: Mapping[str, int] | None = None,
) -> Start:
    """Prepare to start ranks; on some nodes of a job alone where `places` names them."""
    launcher = campaign.launcher
    given = launcher.options if launcher.mpi == mpi else None
    options = launcher_options(mpi, given, style)
    if places is not None:
        options = (*options, *options_on_nodes(mpi, places))
    if container is not None:
        container.require_installed()
    environment = rank_environment(with_allocation(os.environ), threads, container)
    check_allocation(environment, ranks)
    command = rank_command(arguments, ranks, mpi, options, environment, container)
    where = find_rank_nodes(ranks, mpi, options, environment)
    return Start(command, environment, ranks, where)
