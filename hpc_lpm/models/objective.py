"""What a run minimises and measures: the loss and the metrics that suit the data, or the user's."""

from collections.abc import Sequence
from dataclasses import replace

from hpc_lpm.data.dataset import NEXT_TOKEN, DataShape
from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import (
    METRICS_OF_TASK,
    PERPLEXITY,
    count_correct,
    evaluation_metrics_named,
)
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.losses import LOSS_OF_TASK, LOSSES, cross_entropy, loss_named
from hpc_lpm.options import ACCURACY


def with_objective(
    model: LayeredModel, shape: DataShape, loss: str | None = None, metrics: Sequence[str] = ()
) -> LayeredModel:
    """Return the model with the loss and the metrics of a run.

    A loss of the model's own gives way to `loss` alone; otherwise the task of the data decides.

    Args:
        model: the model, whose loss is `cross_entropy` unless it has one of its own.
        shape: of the data.
        loss: the name of a loss, or module:function.
        metrics: names of metrics, or module:function, beside those of the task.

    Raises:
        InputError: if there is no such loss or metric, none is named for data that need one, or two
            metrics have one name.
    """
    identifier = loss
    if identifier is None and model.loss is cross_entropy:
        identifier = LOSS_OF_TASK.get(shape.task)
        if identifier is None:
            raise InputError(
                "no usual loss takes the targets of this data set, and none was named: give one of "
                "your own with --loss module:function."
            )
    chosen = model.loss if identifier is None else loss_named(identifier)
    usual = METRICS_OF_TASK.get(shape.task, ())
    counts = None if ACCURACY not in usual and model.correct is count_correct else model.correct
    # What a loss of the user's own is made of, the toolkit does not know how to measure.
    of_task = usual if identifier in LOSSES.names() else ()
    if identifier != LOSS_OF_TASK[NEXT_TOKEN]:
        of_task = tuple(name for name in of_task if name != PERPLEXITY)
    wanted = [
        name for name in dict.fromkeys((*of_task, *metrics)) if name != ACCURACY or not counts
    ]
    found = (*model.metrics, *evaluation_metrics_named(wanted))
    made = replace(model, loss=chosen, correct=counts, metrics=found)
    names = [metric.name for metric in made.evaluation_metrics]
    for name in names:
        if names.count(name) > 1 or name == "loss":
            raise InputError(
                f"--metric gives two metrics the name {name!r}, each name is accepted once and "
                '"loss" never: rename the function, or leave one out.'
            )
    return made
