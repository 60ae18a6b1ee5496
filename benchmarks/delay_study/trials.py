"""One training of the study: its settings, its result, and the file of all results."""

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.delay_study.correction import NONE, Correction
from benchmarks.delay_study.optimizers import make_optimizer
from benchmarks.delay_study.player import Player
from benchmarks.delay_study.stages import Stages, build_stages
from benchmarks.delay_study.tasks import digits_task, text_task
from hpc_lpm.models.losses import cross_entropy


@dataclass(frozen=True)
class Trial:
    """Settings of a training; `label` names its correction in tables.

    The scales are factors on the initial values of the matrices in blocks and of the embeddings.
    """

    label: str
    optimizer: str = "adamw"
    rate: float = 3e-3
    stages: int = 1
    correction: Correction = NONE
    seed: int = 0
    updates: int = 500
    micro_batches: int = 4
    batch: int = 16
    beta1: float = 0.9
    beta2: float = 0.99
    warm_up: int = 0
    task: str = "gpt"
    blocks: int = 6
    width: int = 48
    heads: int = 2
    block_scale: float = 1.0
    embedding_scale: float = 1.0

    def key(self) -> str:
        """Return the settings as text, by which a result is found again."""
        return json.dumps(asdict(replace(self, label="")), sort_keys=True)


def cosine(rate: float, updates: int, warm_up: int) -> Callable[[int], float]:
    """Return the learning rate by update: linear up to `rate`, then a cosine down to near 0."""

    def at(update: int) -> float:
        rising = min(1.0, (update + 1) / (warm_up + 1))
        return rate * rising * 0.5 * (1 + math.cos(math.pi * update / updates))

    return at


def scale(stages: Stages, blocks: float, embeddings: float) -> None:
    """Multiply the gpt's initial embeddings, and the matrices within its blocks."""
    for stage in stages.all:
        for name, view in stage.views(stage.weights).items():
            if name.endswith((".token", ".position")):
                view.mul_(embeddings)
            elif view.dim() == 2 and name.count(".") == 2:
                view.mul_(blocks)


def run(trial: Trial) -> dict[str, Any]:
    """Train and return the losses: on the test samples, and the mean of the last updates."""
    torch.manual_seed(trial.seed)
    started = time.perf_counter()
    if trial.task == "gpt":
        task = text_task(trial.blocks, trial.width, trial.heads)
    else:
        task = digits_task()
    stages = build_stages(task.model, trial.stages, trial.seed)
    scale(stages, trial.block_scale, trial.embedding_scale)
    samples = trial.batch // trial.micro_batches
    player = Player(
        stages,
        make_optimizer(trial.optimizer, stages, trial.beta1, trial.beta2),
        trial.correction,
        loss=cross_entropy,
        samples=samples,
        micro_batches=trial.micro_batches,
        rate=cosine(trial.rate, trial.updates, trial.warm_up),
        whole_pieces=task.alike_in_any_batch,
    )
    batches = task.batches(samples, trial.updates * trial.batch, trial.seed)
    losses = []
    for loss in player.train(batches, trial.updates):
        losses.append(loss)
        if not math.isfinite(loss):
            return {"loss": math.inf, "train_loss": math.inf, "curve": losses}
    whole = nn.Sequential(*(stage.module for stage in stages.all))
    loss, accuracy = task.evaluate(whole)
    tenth = max(1, len(losses) // 10)
    curve = [sum(part) / len(part) for part in _parts(losses, tenth)]
    return {
        "loss": loss,
        "accuracy": accuracy,
        "curve": curve,
        "train_loss": curve[-1],
        "seconds": time.perf_counter() - started,
    }


def _parts(values: list[float], size: int) -> list[list[float]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


class Results:
    """Results in a file of one JSON object a line, so that a study can go on where it stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = entry["result"]

    def find(self, trial: Trial) -> dict[str, Any] | None:
        """Return the result of a trial with the same settings, if there is one."""
        return self._known.get(trial.key())

    def obtain(self, trials: Iterable[Trial]) -> list[dict[str, Any]]:
        """Return the results of trials, running those that have none."""
        return [self.find(trial) or self._run(trial) for trial in trials]

    def _run(self, trial: Trial) -> dict[str, Any]:
        result = run(trial)
        self._known[trial.key()] = result
        with self._path.open("a") as file:
            entry = {"label": trial.label, "key": trial.key(), "result": result}
            file.write(json.dumps(entry) + "\n")
        print(
            f"{trial.task} {trial.optimizer} K={trial.stages} M={trial.micro_batches} "
            f"rate={trial.rate:g} {trial.label} seed={trial.seed} updates={trial.updates}: "
            f"{result['loss']:.4f}",
            flush=True,
        )
        return result
