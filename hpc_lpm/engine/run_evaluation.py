"""Evaluates a trained run again, on its own data or on others, in one process.

The bits are those of the run's own evaluation, whatever strategy trained it on however many ranks:
micro-batches have the same samples, and sums are taken in their order.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hpc_lpm.activation import describe_tensors
from hpc_lpm.data.dataset import Dataset
from hpc_lpm.engine.batches import evaluation_micro_batches
from hpc_lpm.engine.checkpoint.store import Checkpoint, Manifest, TrainedData
from hpc_lpm.engine.environment import own_device
from hpc_lpm.engine.evaluation import Evaluation, combined
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.loading import recipe_of
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.runners.whole_model import WholeModel
from hpc_lpm.engine.settings import TrainSettings, checked_settings
from hpc_lpm.engine.strategies.registry import DEFAULT_STRATEGY, strategy_named
from hpc_lpm.engine.updating import UpdatingBySettings
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import create_model

Part = Literal["test", "validation", "training"]


@dataclass(frozen=True)
class RunEvaluation:
    """What an evaluation of a run has found, of which model and data."""

    checkpoint: Path
    model: str
    dataset: str
    samples: int
    found: Evaluation


def evaluate_run(
    run: Path,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    loss: str | None = None,
    metrics: tuple[str, ...] = (),
    part: Part = "test",
    best: bool = False,
) -> RunEvaluation:
    """Evaluate a checkpoint in a run's folder.

    Args:
        run: the folder of a run.
        dataset: the data set to evaluate on, that of the run by default. Its images are normalised
            as those of the run were.
        data_dir: the folder in which data sets are looked for, by default that of the run.
        loss: the loss to compute, by default that of the run.
        metrics: further metrics.
        part: the part of the data set.
        best: whether to take the checkpoint of the best evaluation instead of the newest one.

    Raises:
        InputError: if there is no such checkpoint, a file of it is damaged, there is no such part,
            or data or model do not suit what was trained.
        TrainingError: if a layer, the loss or a metric fails.
    """
    checkpoint = Checkpoint.of_run(run, best=best)
    saved = checkpoint.manifest
    settings = _settings(saved, dataset, data_dir, loss, metrics)
    data = recipe_of(settings).load()
    if dataset is not None:
        _check_alike(data, saved.data, run)
    samples = data.parts.get(part)
    if samples is None:
        raise InputError(
            f"--part {part}: data set {data.name} has no such part, accepted are "
            f"{', '.join(data.parts)}."
        )
    moments = saved.data.moments
    if dataset is not None and moments and samples.moments:
        samples = samples.normalized(moments.means, moments.deviations)
    model = create_model(
        settings.model, data.shape, settings.seed, loss=settings.loss, metrics=settings.metric
    )
    torch.set_num_threads(settings.threads)
    device, job = own_device(), SingleProcess()
    context = RunContext(
        settings,
        job,
        device,
        model,
        None,
        Recorder(0, lambda *_: None),
        UpdatingBySettings(model, settings.optimizer, settings.learning_rate, saved.updates, job),
        saved.updates,
        saved.history.epochs_evaluated,
        # Of the replicas of stages each had its share of a micro-batch.
        saved.replicas if strategy_named(saved.remaking.strategy).needs_plan else 1,
    )
    start = time.perf_counter()
    whole = WholeModel(context)
    _load(checkpoint, whole, data)
    batches = evaluation_micro_batches(samples, context.micro_batch_size)
    scores = whole.evaluate(batches, range(len(batches)), model.evaluation_metrics)
    mean_loss, values, predictions = combined(scores, model.evaluation_metrics)
    found = Evaluation(
        saved.history.step,
        -(-saved.history.step // saved.steps_an_epoch),
        part,
        mean_loss,
        values,
        predictions,
        seconds=time.perf_counter() - start,
    )
    return RunEvaluation(checkpoint.path, model.name, data.name, len(samples), found)


def _settings(
    saved: Manifest,
    dataset: str | None,
    data_dir: Path | None,
    loss: str | None,
    metrics: tuple[str, ...],
) -> TrainSettings:
    """Return the settings of the run as those of one process, with what is asked for instead."""
    own = strategy_named(saved.remaking.strategy).options.model_fields
    document: dict[str, Any] = {k: v for k, v in saved.settings.items() if k not in own}
    document |= {"strategy": DEFAULT_STRATEGY, "plan": None, "init_from": None, "augment": None}
    if dataset is not None:
        # Parts and normalisation are those of the other data.
        document |= {"dataset": dataset, "validation": 0.0, "normalize": "dataset"}
    document["metric"] = list(dict.fromkeys([*saved.remaking.metric, *metrics]))
    document |= {"loss": loss} if loss else {}
    document |= {"data_dir": str(data_dir)} if data_dir else {}
    return checked_settings(**document)


def _check_alike(data: Dataset, trained: TrainedData, run: Path) -> None:
    """Refuse other data than a model of this kind takes.

    Raises:
        InputError: if they are of another kind than those that it was trained on.
    """
    shape = data.shape
    found = _described(shape.kind, shape.input_shape, shape.classes, shape.task)
    accepted = _described(trained.kind, trained.input_shape, trained.classes, trained.task)
    if found != accepted:
        raise InputError(
            f"--dataset {data.name} has {found}, run {run} was trained on {accepted}: name a data "
            "set of the same kind."
        )


def _described(kind: str, input_shape: tuple[int, ...], classes: int, task: str) -> str:
    """Describe data by what cannot differ, which the size of images and texts can."""
    channels = f" of {input_shape[0]} channels" if kind == "image" and len(input_shape) > 2 else ""
    return f"inputs of kind {kind}{channels} and {classes} classes (task {task})"


def _load(checkpoint: Checkpoint, whole: WholeModel, data: Dataset) -> None:
    """Load a checkpoint's weights and buffers into the layers of a whole model.

    Raises:
        InputError: if a tensor is missing or of another shape.
    """
    saved = checkpoint.layer_tensors()
    with torch.no_grad():
        for index, layer in whole.layers.items():
            for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
                value = saved.get((index, name))
                if value is None or value.shape != tensor.shape:
                    found = "no such tensor" if value is None else describe_tensors([value])
                    raise InputError(
                        f"checkpoint {checkpoint.path} has {found} for {name} of layer {index}, "
                        f"the model for data set {data.name} of shape "
                        f"{list(data.shape.input_shape)} has {describe_tensors([tensor])}: give "
                        "data of the shape that it was trained on, and the same model."
                    )
                tensor.copy_(value)
