"""Trains trials that take turns on the ranks of one launch."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from hpc_lpm.campaign.calls import Call
from hpc_lpm.campaign.environment import CHECKOUT, describe_source
from hpc_lpm.campaign.kept_model import keep_model
from hpc_lpm.campaign.launch_records import Attempt, Launch, begin_attempt, end_attempt
from hpc_lpm.campaign.progress_line import ProgressLine
from hpc_lpm.campaign.rank_start import prepare_start
from hpc_lpm.campaign.shared_launch import LAUNCH as SHARED_LAUNCH
from hpc_lpm.campaign.shared_launch import SharedFolder, Turn, Turns
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trial_attempts import ATTEMPTS
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.cluster.container import Container
from hpc_lpm.engine.result import RESULT
from hpc_lpm.errors import EXIT_INTERRUPTED
from hpc_lpm.files import write_text_atomically


def train_on_shared_ranks(
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
    if not shared.trained(name):
        waiting = shared.waiting(name)
        for each in waiting:
            # What a launch that was killed has left: nobody knows how that went.
            shutil.rmtree(shared.run(each.name), ignore_errors=True)
        request = shared.root / f"{steps.folder.run_name(name)}.turns.json"
        documents = {each.name: steps.settings(each.name) for each in waiting}
        Turns(
            settings={each: found.model_dump(mode="json") for each, found in documents.items()},
            folders={each: str(shared.run(each)) for each in documents},
        ).write(request)
        choice = steps.choice(trial)
        turn = request.with_suffix(".turn.json")
        turn.unlink(missing_ok=True)  # of a launch before, whose last trial is not to be blamed
        start = prepare_start(
            steps.campaign,
            ("campaign", "train-in-turn", str(request)),
            ranks,
            mpi,
            steps.settings(name).threads,
            choice.style if choice else None,
            Container.of_jobs(),
        )
        done = start.supervised(log, say, steps.campaign.receive_timeout_seconds)
        for each in waiting:
            if (shared.run(each.name) / RESULT).exists():
                Launch.of(done, start.where).write(shared.run(each.name) / SHARED_LAUNCH)
        if done.stopped_by is not None:
            return EXIT_INTERRUPTED
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
    begun = begin_attempt(record, attempt)
    # Of a launch that was stopped or has ended with another trial, this one is done all the same.
    kept = keep_model(steps, name, say)
    attempts = end_attempt(record, begun, launch.ended, kept)
    own = {
        "attempts": attempts,
        "source": describe_source(CHECKOUT),
        "exit_code": kept,
        "stopped_by": None,
    }
    launch.model_copy(update=own).write(folder / "launch.json")
    (folder / SHARED_LAUNCH).unlink()
    if not log.exists():
        write_text_atomically(log, f"trained on shared ranks: {shlex.join(launch.command)}\n")
    say(ProgressLine(steps, name).closing_line(kept))
    return kept
