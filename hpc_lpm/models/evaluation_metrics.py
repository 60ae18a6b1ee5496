"""What is computed of a trained model beside its loss, by name, and how users add their own.

A metric of the user's own is `module:function`. It is called with what the last layer returned for
a micro-batch and with the targets, and returns a sum and a count: the metric is the sum over all
micro-batches divided by the count over all of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from hpc_lpm.data.dataset import CLASSES, MULTI_LABEL, NEXT_TOKEN, REGRESSION
from hpc_lpm.errors import InputError
from hpc_lpm.extensions import Registry
from hpc_lpm.identifiers import accepted_options, convert_options, parse_identifier
from hpc_lpm.models.losses import alike, classes_last, mean_absolute_error
from hpc_lpm.options import ACCURACY
from hpc_lpm.user_functions import user_function

SumAndCount = tuple[float, float]

PERPLEXITY = "perplexity"


@dataclass(frozen=True)
class EvaluationMetric:
    """A number computed of an evaluation: `of_mean(sum / count)` over its micro-batches.

    Attributes:
        name: what it is called in results.
        function: returns (sum, count) of a micro-batch, given outputs and targets; None if the
            metric is computed from the mean loss.
        of_mean: makes the metric of the mean.
        higher_is_better: whether a higher or a lower value is the better one.
        description: what it is, in a few words.
        lowest: the value below which it never is.
        highest: the value above which it never is.
    """

    name: str
    function: Callable[[Any, Any], tuple[Any, Any]] | None
    of_mean: Callable[[float], float] = float
    higher_is_better: bool = True
    description: str = ""
    lowest: float = -math.inf
    highest: float = math.inf

    def of_micro_batch(self, outputs: Any, targets: Any) -> SumAndCount:
        """Return sum and count of one micro-batch.

        Raises:
            InputError: if the function returns anything else.
        """
        if self.function is None:
            return 0.0, 0.0
        returned = self.function(outputs, targets)
        try:
            found, count = returned
            return float(found), float(count)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"metric {self.name!r} returned {_described(returned)}, accepted are two numbers, "
                "the sum over the micro-batch and how many it was taken over: return both."
            ) from None

    def of_sums(self, found: float, count: float, mean_loss: float) -> float | None:
        """Return the metric of a whole evaluation, None if there was nothing to count.

        Args:
            found: the sum over all micro-batches.
            count: the count over all micro-batches.
            mean_loss: the mean loss of the evaluation.
        """
        if self.function is None:
            return _finite(self.of_mean, mean_loss)
        return _finite(self.of_mean, found / count) if count else None


def _finite(function: Callable[[float], float], value: float) -> float | None:
    try:
        return function(value)
    except (OverflowError, ValueError):
        return None


def _described(returned: object) -> str:
    if isinstance(returned, Tensor):
        return f"a tensor {list(returned.shape)}"
    return f"{type(returned).__name__} {str(returned)[:60]}"


def count_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Count the predictions, the classes with the largest outputs, that equal their target.

    Outputs are [..., classes] or [n, classes, ...] for targets [...].
    """
    return (classes_last(outputs, targets).argmax(dim=-1) == targets).sum()


_SHARE = partial(EvaluationMetric, lowest=0.0, highest=1.0)


def accuracy_by(correct: Callable[[Any, Any], Tensor]) -> EvaluationMetric:
    """Return the share of right predictions, of which `correct` counts those of a micro-batch.

    The toolkit's own count leaves out what are no predictions of classes, since nobody asked for
    it: a loss of the user's own may take outputs and targets of any kind.
    """

    def share(outputs: Any, targets: Any) -> tuple[Any, int]:
        if correct is count_correct and not _are_predictions(outputs, targets):
            return 0, 0
        return correct(outputs, targets), targets.numel()

    return _SHARE(ACCURACY, share, description="share of right predictions")


def _are_predictions(outputs: Any, targets: Any) -> bool:
    tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    return tensors and classes_last(outputs, targets).shape[:-1] == targets.shape


def top5_correct(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Count the targets that are among the five largest outputs [..., classes]."""
    outputs = classes_last(outputs, targets)
    best = outputs.topk(min(5, outputs.shape[-1]), dim=-1).indices
    return (best == targets.unsqueeze(-1)).any(dim=-1).sum(), targets.numel()


def labels_right(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Count the labels whose logit has the right sign."""
    return ((alike(outputs, targets) > 0) == (targets > 0.5)).sum(), targets.numel()


def absolute_error(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Return the sum of absolute differences."""
    return mean_absolute_error(outputs, targets) * targets.numel(), targets.numel()


def squared_error(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Return the sum of squared differences."""
    return (alike(outputs, targets) - targets).square().sum(), targets.numel()


def _users_own(name: str, found: object) -> EvaluationMetric:
    if isinstance(found, EvaluationMetric):
        return found
    function = user_function("metric", name, found, "outputs, targets", "a sum and a count")
    return EvaluationMetric(name.rpartition(":")[2], function)  # type: ignore[arg-type]


_LOWER = partial(EvaluationMetric, higher_is_better=False, lowest=0.0)

EVALUATION_METRICS: Registry[EvaluationMetric] = Registry(
    "metric",
    "hpc_lpm.evaluation_metrics",
    {
        ACCURACY: accuracy_by(count_correct),
        "top5_accuracy": _SHARE(
            "top5_accuracy",
            top5_correct,
            description="share of targets among the five most probable classes",
        ),
        "label_accuracy": _SHARE(
            "label_accuracy", labels_right, description="share of labels that are told right"
        ),
        PERPLEXITY: _LOWER(
            PERPLEXITY, None, math.exp, description="exponential of the mean cross entropy"
        ),
        "mae": _LOWER("mae", absolute_error, description="mean absolute error"),
        "rmse": _LOWER(
            "rmse", squared_error, math.sqrt, description="root of the mean squared error"
        ),
    },
    _users_own,
)

METRICS_OF_TASK = {
    CLASSES: (ACCURACY,),
    NEXT_TOKEN: (ACCURACY, PERPLEXITY),
    MULTI_LABEL: ("label_accuracy",),
    REGRESSION: ("rmse", "mae"),
}
"""The metrics of each task of data, before those that are asked for."""


def evaluation_metrics_named(identifiers: Sequence[str]) -> tuple[EvaluationMetric, ...]:
    """Return the metrics `name` or `module:function`, each with `,option=value ...`.

    Raises:
        InputError: if there is no such metric, or an option or its value is not accepted.
    """
    return tuple(_named(identifier) for identifier in identifiers)


def _named(identifier: str) -> EvaluationMetric:
    parsed = parse_identifier(identifier)
    name = parsed.name if parsed.argument is None else f"{parsed.name}:{parsed.argument}"
    metric = EVALUATION_METRICS.named(name)
    if metric.function is None or not parsed.options:
        return metric
    targets = next(iter(accepted_options(metric.function, {})), None)
    options = convert_options(parsed, metric.function, {} if targets is None else {targets: None})
    return replace(metric, function=partial(metric.function, **options))
