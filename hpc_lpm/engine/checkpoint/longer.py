"""Going on from a checkpoint to another length: more epochs, more steps or more patience.

Such a run computes what a run of its own length computes from the start where the learning rate of
the updates so far does not depend on the length and training drains where the other one drained.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from hpc_lpm.engine.checkpoint.store import LENGTH_SETTINGS, Checkpoint, Manifest
from hpc_lpm.engine.history import History, next_drain
from hpc_lpm.engine.learning_rate import advance, build_scheduler
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.pipeline.options import LaggingOptions
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError


def continues_exactly(checkpoint: Checkpoint, settings: TrainSettings) -> bool:
    """Tell if a run of another length computes from here what it computes from the start.

    The runs share all settings but those of length, and model and data.

    Raises:
        InputError: if the checkpoint cannot be continued, which has more steps or other settings.
    """
    manifest = checkpoint.manifest
    settings = strategy_named(settings.strategy).with_clip_scope(settings)
    # Settings that are alike leave the same choice to both runs.
    left = {name: manifest.settings.get(name) for name in settings.own.left_to_the_run}
    document = {**settings.model_dump(mode="json"), **left}
    checkpoint.check(document, manifest.replicas, manifest.cuts[-1])
    return not changes_of_length(checkpoint, settings)


def changes_of_length(checkpoint: Checkpoint, settings: TrainSettings) -> list[str]:
    """Return what a run of this length would have computed otherwise until this checkpoint.

    Each change is a clause, such as "it would not have drained after step 10"; there is none if the
    run has the length that the checkpoint's run had.

    Raises:
        InputError: if the checkpoint has more steps than the run.
    """
    saved = checkpoint.manifest
    updates = updates_of(settings, saved.steps_an_epoch)
    if updates < saved.history.step:
        raise InputError(
            f"--resume: checkpoint {checkpoint.path} is after step {saved.history.step}, this run "
            f"has {updates}: ask for at least as many, or give another --out."
        )
    ours = settings.model_dump(mode="json")
    if all(saved.settings.get(name) == ours.get(name) for name in LENGTH_SETTINGS):
        return []
    changes = []
    if updates != saved.updates:
        changes += _changes_of_rate(saved, settings, updates)
        changes += _changes_of_flushes(saved, settings, updates)
    return changes + _changes_of_drains(saved, settings, updates)


def updates_of(settings: TrainSettings, steps_an_epoch: int) -> int:
    """Return the number of optimizer steps of a whole run."""
    return settings.steps or steps_an_epoch * (settings.epochs or 0)


def reopened(history: History, settings: TrainSettings, steps_an_epoch: int) -> History:
    """Return a history that goes on, as that of a longer run.

    If it ended inside an epoch, its last evaluation becomes one inside that epoch, and its end a
    drain.
    """
    found, step = deepcopy(history), history.step
    ended_inside_epoch = history.epochs_evaluated * steps_an_epoch > step
    if step == updates_of(settings, steps_an_epoch) or not ended_inside_epoch:
        return found
    found.epochs_evaluated = step // steps_an_epoch
    if step not in found.drains:
        found.drains.append(step)
    for each in found.evaluations:
        each.after_epoch = each.after_epoch and each.step != step
    return found


def _changes_of_rate(saved: Manifest, settings: TrainSettings, updates: int) -> list[str]:
    done = saved.history.step
    theirs, ours = (_rates(settings, length, done) for length in (saved.updates, updates))
    differing = [update for update, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b]
    if not differing:
        return []
    return [
        f"its learning rate would have been another from step {differing[0] + 1} on, since the "
        f"schedule depends on the length of the run (here that of {saved.updates} steps)"
    ]


def _rates(settings: TrainSettings, updates: int, done: int) -> list[dict[str, Any]]:
    """Return what a run's schedule sets for each of its first updates."""
    optimizer = build_optimizer([nn.Parameter(torch.zeros(1))], settings.optimizer)
    scheduler = build_scheduler(optimizer, settings.learning_rate, updates)
    found = []
    for _ in range(done):
        found.append({k: v for k, v in optimizer.param_groups[0].items() if k != "params"})
        advance(scheduler, 1)
    return found


def _changes_of_flushes(saved: Manifest, settings: TrainSettings, updates: int) -> list[str]:
    own, steps_an_epoch, done = settings.own, saved.steps_an_epoch, saved.history.step
    if not isinstance(own, LaggingOptions):
        return []
    theirs, ours = (
        own.flushed_steps(length, steps_an_epoch) for length in (saved.updates, updates)
    )
    changes = []
    if min(theirs.head, done) != min(ours.head, done):
        changes.append("its synchronous head would have ended at another step")
    if min(theirs.tail, done) != min(ours.tail, done):
        changes.append("its synchronous tail would have begun at another step")
    return changes


def _changes_of_drains(saved: Manifest, settings: TrainSettings, updates: int) -> list[str]:
    history, steps_an_epoch = saved.history, saved.steps_an_epoch
    drained = sorted({*history.drains, history.step} - {0})
    others = [
        step for step in drained if next_drain(settings, step - 1, steps_an_epoch, updates) != step
    ]
    changes = []
    lags = strategy_named(settings.strategy).lags and len(saved.cuts) > 2
    if others and lags:
        listed = ",".join(map(str, others))
        plural = "s" if len(others) > 1 else ""
        changes.append(f"it would not have drained after step{plural} {listed}")
    if history.evaluated_step in others and saved.replicas > 1:
        changes.append("replicas would have averaged their buffers later")
    return changes
