"""What evaluations have found, as metrics, and the one of them that stands for a model's quality.

It is the accuracy on the test part where there is one, or else the first metric of the test part,
or else its loss. Reports, comparisons and figures show it wherever they show an accuracy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Literal

from hpc_lpm.campaign.metrics import (
    ACCURACY,
    BUILT_IN,
    METRICS,
    OF_EVALUATION,
    Metric,
    last_of,
)
from hpc_lpm.engine.evaluation import TEST
from hpc_lpm.engine.result import RunResult
from hpc_lpm.errors import InputError

_LOSS = "loss"


def metric_named(name: str) -> Metric:
    """Return a metric by the name that a campaign file has, such as `test_accuracy` or `test_mae`.

    Raises:
        InputError: if it is unknown or cannot be imported.
    """
    match = OF_EVALUATION.fullmatch(name)
    if name in METRICS.names() or match is None:
        return METRICS.named(name)
    return _of_evaluations(match[1], match[2], lower=_is_lower_better(match[2]))


def metrics_with(names: Iterable[str], results: Sequence[RunResult] = ()) -> list[Metric]:
    """Return the toolkit's metrics, those that `names` has, and those of evaluations.

    Those of a target are among them only if `names` has them.

    Args:
        names: of further metrics.
        results: of all runs; what their evaluations found has a column each. What stands for the
            quality in a race, and what `names` has, is shown in reports and comparisons.

    Raises:
        InputError: if a metric is unknown or cannot be imported, or two have the same column.
    """
    found = {name: metric for name, metric in BUILT_IN.items() if not metric.of_target}
    asked = list(names)
    for name in asked:
        metric = metric_named(name)
        if found.setdefault(metric.name, metric) is not metric:
            raise InputError(
                f"metric {name!r} calls itself {metric.name!r} as another metric of the campaign "
                "does: give one of them another name."
            )
    races: dict[tuple[str, str], list[RunResult]] = {}
    for result in results:
        races.setdefault((result.model, result.dataset), []).append(result)
    shown = {name for name in asked if OF_EVALUATION.fullmatch(name)}
    shown |= {quality_of(of_race).name for of_race in races.values()}
    for result in results:
        for evaluation in result.evaluations:
            for name in (_LOSS, *evaluation.metrics):
                lower = name == _LOSS or name in result.lower_is_better
                metric = _of_evaluations(evaluation.part, name, lower=lower)
                found.setdefault(metric.name, metric)
    return [_shown(metric) if metric.name in shown else metric for metric in found.values()]


def quality_of(results: Sequence[RunResult]) -> Metric:
    """Return the metric that stands for the quality of the runs of one race."""
    evaluations = [
        (result, each) for result in results for each in result.evaluations if each.part == TEST
    ]
    if any(result.test_accuracy for result in results) or not evaluations:
        return ACCURACY
    result, evaluation = evaluations[-1]
    name = next(iter(evaluation.metrics), _LOSS)
    lower = name == _LOSS or name in result.lower_is_better
    return _shown(_of_evaluations(TEST, name, lower=lower))


def _shown(metric: Metric) -> Metric:
    """Return a metric of evaluations as one that reports show and comparisons compare."""
    if metric.name in BUILT_IN:
        return metric
    compared_as: Literal["points", "difference"] = "points" if metric.unit == "%" else "difference"
    return replace(metric, in_report="interval", compared_as=compared_as, paired=True)


def _is_lower_better(name: str) -> bool:
    if name == _LOSS:
        return True
    # Imported here, because it imports torch.
    from hpc_lpm.models.evaluation_metrics import EVALUATION_METRICS

    return (
        name in EVALUATION_METRICS.names() and not EVALUATION_METRICS.named(name).higher_is_better
    )


@cache
def _of_evaluations(part: str, name: str, *, lower: bool) -> Metric:
    column = f"{part}_{name}"
    if column in BUILT_IN:
        return BUILT_IN[column]

    def of_run(result: RunResult) -> float:
        return last_of([e.values.get(column) for e in result.evaluations if e.part == part])

    share = name.endswith("accuracy")
    return Metric(
        column,
        f"{part} {name.replace('_', ' ')}",
        "lower" if lower else "higher",
        compared_as=None,
        of_run=of_run,
        unit="%" if share else "",
        scale=100.0 if share else 1.0,
        digits=2 if share else 4,
        paired=False,
        in_report="no",
    )
