"""The metrics that a script asks for when it evaluates."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from hpc_lpm.activation import tensors_of
from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric, evaluation_metrics_named

Metric = Callable[[Any, Any], Any] | str
"""A function of outputs and targets, or the name of a metric of `hpc-lpm`.

A function returns the mean over the samples of a micro-batch as one number, or a sum and what it is
to be divided by, which are then added up over all micro-batches.
"""

SeveralMetrics = list[Metric] | tuple[Metric, ...] | Mapping[str, Metric]
Metrics = Metric | SeveralMetrics | None


def named_metrics(asked: Metrics) -> dict[str, EvaluationMetric]:
    """Return the metrics that are asked for, each under its name.

    Raises:
        InputError: if one is neither a function nor the name of a metric.
    """
    if asked is None:
        return {}
    if isinstance(asked, Mapping):
        return {name: _as_metric(name, metric) for name, metric in asked.items()}
    listed = [asked] if isinstance(asked, str) or callable(asked) else asked
    if not isinstance(listed, list | tuple):
        raise _not_accepted(asked)
    names = [_name_of(metric) for metric in listed]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"evaluate was given two metrics called {name!r}, accepted is one of each name: "
                "give a dictionary of them by names of your own."
            )
    return {name: _as_metric(name, metric) for name, metric in zip(names, listed, strict=True)}


def _name_of(metric: Metric) -> str:
    if isinstance(metric, str):
        return evaluation_metrics_named([metric])[0].name
    if not callable(metric):
        raise _not_accepted(metric)
    return str(getattr(metric, "__name__", type(metric).__name__))


def _as_metric(name: str, metric: object) -> EvaluationMetric:
    if isinstance(metric, str):
        return replace(evaluation_metrics_named([metric])[0], name=name)
    if not callable(metric):
        raise _not_accepted(metric)

    def sum_and_count(outputs: Any, targets: Any) -> tuple[Any, Any]:
        found = metric(outputs, targets)
        if isinstance(found, tuple | list) and len(found) == 2:
            return found[0], found[1]
        samples = len(tensors_of(targets)[0])
        # A whole number is more likely a count, which would pass for a mean.
        whole = isinstance(found, int) or (
            isinstance(found, Tensor) and not found.is_floating_point()
        )
        try:
            if not whole:
                return float(found) * samples, samples
        except (TypeError, ValueError, RuntimeError):
            pass
        kind = f"a tensor of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"metric {name!r} returned {kind}, accepted are one floating-point number, the mean "
            "over the samples, and two numbers, a sum and what it is to be divided by: return one "
            "of these."
        )

    return EvaluationMetric(name, sum_and_count)


def _not_accepted(found: object) -> InputError:
    return InputError(
        f"evaluate was given a metric of type {type(found).__name__}, accepted are a function of "
        "(outputs, targets), the name of a metric, and a list or dictionary of these."
    )
