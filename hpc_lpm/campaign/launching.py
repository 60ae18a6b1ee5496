"""Runs one step of a campaign on its ranks, records how it went, and stops it in good order."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hpc_lpm.campaign.calls import Call
from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.identity import IDENTITY, Identity, result_settings
from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.rank_start import prepare_start
from hpc_lpm.campaign.shared_training import train_on_shared_ranks
from hpc_lpm.campaign.shorter_runs import copy_progress, shorter_run
from hpc_lpm.campaign.starting_again import StartAgain
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trial_attempts import train_until_done, would_fail_again
from hpc_lpm.cluster.container import Container
from hpc_lpm.engine.checkpoint.store import FOLDER, newest_checkpoint
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically


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
    start = prepare_start(campaign, arguments, ranks, mpi, threads=1, container=container)
    done = start.supervised(log, say, campaign.receive_timeout_seconds)
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
    failed_before = would_fail_again(folder, name, log, say, attempt, identifier)
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
        ended = train_on_shared_ranks(steps, trial, ranks, mpi, log, say, call)
        if ended is not None:
            return ended
    settings = steps.settings(name)
    write_text_atomically(steps.folder.settings(name), settings.model_dump_json(indent=2) + "\n")
    style = choice.style if choice else None
    prepare = partial(
        prepare_start,
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
    return train_until_done(steps, name, prepare(ranks), again, log, say, identifier)


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
