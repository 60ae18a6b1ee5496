"""Trains from a script and as the command does, in turn, again and again; run it under mpirun.

    script_ranks.py RACE.json OUT.json

Both share the ranks, as in `race_ranks.py`. The script is what a user would write: it makes an
engine, hands it whole batches on every rank, and drains after each epoch, where the command
evaluates. It draws the same samples in the same order, so that both end in the same weights.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch

import hpc_lpm
from benchmarks.race_turns import Outcome, take_turns
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.data.samples import Draws
from hpc_lpm.engine.batches import training_micro_batches
from hpc_lpm.engine.checkpoint.tensors import weights_sha256
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.settings import TrainSettings, checked_settings
from hpc_lpm.engine.times import times_and_losses
from hpc_lpm.engine.training import Training
from hpc_lpm.models.registry import create_model


def by_command(job: Job, settings: TrainSettings, folder: Path) -> dict | None:
    """Train as `hpc-lpm train` does; return on rank 0 the rate and the hash of the weights."""
    result = Training(settings, job).run(folder, None)
    if result is None:
        return None
    samples = settings.batch_size * len(result.step_seconds)
    return {
        "samples_per_second": samples / result.training_seconds,
        "weights_sha256": result.weights_sha256,
    }


def by_script(job: Job, settings: TrainSettings) -> dict | None:
    """Train from a script; return on rank 0 the rate and the hash of the weights."""
    data = load_dataset(settings.dataset)
    model = create_model(settings.model, data.shape, settings.seed)
    steps_an_epoch, size = len(data.train) // settings.batch_size, settings.batch_size
    engine = hpc_lpm.initialize(
        model,
        settings.plan,
        loss=model.loss,
        optimizer=partial(
            torch.optim.SGD,
            lr=settings.optimizer.lr,
            momentum=settings.optimizer.momentum,
            weight_decay=settings.optimizer.weight_decay,
        ),
        seed=settings.seed,
        batch_size=size,
        micro_batches=settings.micro_batches,
        strategy=settings.strategy,
        weights=settings.own.weights,
    )
    for epoch in range(-(-settings.steps // steps_an_epoch)):
        steps = min(steps_an_epoch, settings.steps - engine.step)
        order = torch.cat(
            training_micro_batches(
                data.train,
                batch_size=size,
                micro_batches=settings.micro_batches,
                steps=steps,
                seed=settings.seed,
                epoch=epoch,
            ).chunks
        )
        for batch in torch.split(order, size):
            draws = Draws(settings.seed, epoch)
            engine.train_batch(data.train.inputs(batch, draws), data.train.targets(batch, draws))
        engine.drain()
    fingerprint = weights_sha256(engine.trained_state().layers, job)
    records = job.all_gather(engine.record())
    engine.close()
    if job.rank != 0:
        return None
    samples = [size] * settings.steps
    times = times_and_losses([record.segments for record in records], samples, 0)
    return {
        "samples_per_second": sum(samples) / times.training_seconds,
        "weights_sha256": fingerprint,
    }


def train(job: Job, contestant: dict[str, Any], folder: Path) -> Outcome:
    """Let the script or the command train."""
    settings = checked_settings(**contestant["settings"], checkpoint_epochs=0)
    if contestant["label"] == "script":
        return by_script(job, settings)
    return by_command(job, settings, folder)


take_turns(train, alternates=True)
