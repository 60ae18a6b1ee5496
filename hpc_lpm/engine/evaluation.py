"""Evaluations: what the last stage finds of each micro-batch, and what comes of all of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpc_lpm.options import ACCURACY

if TYPE_CHECKING:  # results are read without torch
    from hpc_lpm.activation import Activation
    from hpc_lpm.models.compute_format import ComputeFormat
    from hpc_lpm.models.evaluation_metrics import EvaluationMetric, SumAndCount
    from hpc_lpm.models.layer_calls import LayerCalls
    from hpc_lpm.models.layered import LayeredModel

TEST, VALIDATION = "test", "validation"
"""The parts of a data set that a model is evaluated on."""


@dataclass(frozen=True)
class MicroBatchScores:
    """The mean loss of one micro-batch, and sum and count of each metric, in the model's order."""

    number: int
    samples: int
    loss: float
    metrics: "tuple[SumAndCount, ...]"


@dataclass
class Evaluation:
    """What an evaluation has found; None stands for what is no finite number.

    `step` counts the optimizer steps before it, `epoch` the epochs trained in whole or in part;
    `part` is "test" or "validation"; `predictions` is the largest count of a metric. `seconds` is
    the time on the slowest rank, `drain_seconds` the time for which the first rank that had
    finished its part of the steps before waited for the last one. `after_epoch` is False of an
    evaluation inside an epoch; the end of a run counts as the end of an epoch.
    """

    step: int
    epoch: int
    part: str
    loss: float | None
    metrics: dict[str, float | None] = field(default_factory=dict)
    predictions: int = 0
    seconds: float = 0.0
    drain_seconds: float = 0.0
    after_epoch: bool = True

    @property
    def values(self) -> dict[str, float | None]:
        """The loss and every metric under names such as `validation_loss`."""
        named = {"loss": self.loss, **self.metrics}
        return {f"{self.part}_{name}": value for name, value in named.items()}

    def __str__(self) -> str:
        """Return loss and metrics in words, such as `test accuracy 75.00 % | test loss 0.6931`."""
        values = {ACCURACY: self.metrics.get(ACCURACY), "loss": self.loss, **self.metrics}
        if ACCURACY not in self.metrics:
            del values[ACCURACY]
        return " | ".join(f"{self.part} {_in_words(*value)}" for value in values.items())


def _in_words(name: str, value: float | None) -> str:
    if value is None:
        return f"{name} has no finite value"
    return f"{name} {100 * value:.2f} %" if name == ACCURACY else f"{name} {value:.4g}"


def score(
    model: "LayeredModel",
    calls: "LayerCalls",
    compute_format: "ComputeFormat",
    outputs: "Activation",
    targets: "Activation",
    samples: int,
    metrics: "Sequence[EvaluationMetric]",
) -> MicroBatchScores:
    """Compute loss and metrics of the micro-batch that `calls` has just run in evaluation.

    Raises:
        InputError: if a metric returns no sum and count.
    """
    loss = float(calls.loss(compute_format.loss(model.loss), outputs, targets))
    found = tuple(metric.of_micro_batch(outputs, targets) for metric in metrics)
    return MicroBatchScores(calls.number, samples, loss, found)


def combined(
    scores: Iterable[MicroBatchScores], metrics: "Sequence[EvaluationMetric]"
) -> tuple[float | None, dict[str, float | None], int]:
    """Return the mean loss over all samples, each metric by name, and how many it counted at most.

    Sums are taken in the order of the micro-batches, so that every strategy gets the same bits.
    """
    ordered = sorted(scores, key=lambda found: found.number)
    losses = [found.loss * found.samples for found in ordered]
    loss = math.fsum(losses) if all(map(math.isfinite, losses)) else math.nan
    mean_loss = loss / sum(found.samples for found in ordered)
    values: dict[str, float | None] = {}
    counts = [0.0]
    for index, metric in enumerate(metrics):
        total = sum(found.metrics[index][0] for found in ordered)
        counts.append(sum(found.metrics[index][1] for found in ordered))
        value = metric.of_sums(total, counts[-1], mean_loss)
        values[metric.name] = value if value is not None and math.isfinite(value) else None
    return mean_loss if math.isfinite(mean_loss) else None, values, int(max(counts))
