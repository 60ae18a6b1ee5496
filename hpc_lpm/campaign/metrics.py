"""The numbers of a run that campaigns compare: one table for every place that shows or judges them.

Summary, statistics, report, comparison, figures and expectations all read this table. A user's own
metric is a `Metric` in a module of theirs, which a campaign file names as `module:name` under
`metrics` or in an expectation.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, WithJsonSchema

from hpc_lpm.engine.result import RunResult
from hpc_lpm.errors import InputError, closest
from hpc_lpm.extensions import Registry, expect_type

RUN_COLUMNS = (
    *("trial", "model", "dataset", "strategy", "contestant", "planner"),
    *("ranks", "seed", "repeat", "length", "calls", "target", "steps", "weights_sha256"),
)
"""Columns of summary.csv that are no metrics, and whose names no metric can have."""


@dataclass(frozen=True)
class Quantity:
    """Something measured that two contestants, or two campaigns, can be compared by.

    Attributes:
        name: its name in files and in expectations, such as `peak_memory_bytes`.
        title: what people call it in tables and figures, such as "memory".
        better: whether a higher or a lower value is the better one.
        compared_as: how two campaigns are compared by it: as the ratio of medians, or, what the
            seed determines, by the difference of paired runs, in percentage points for shares
            between 0 and 1; None if they are not.
    """

    name: str
    title: str
    better: Literal["higher", "lower"] = "higher"
    compared_as: Literal["ratio", "points", "difference"] | None = "ratio"

    @property
    def subtracted(self) -> bool:
        """Whether it is compared by differences instead of ratios."""
        return self.compared_as in {"points", "difference"}


@dataclass(frozen=True, kw_only=True)
class Metric(Quantity):
    """A quantity that is computed from the result of a run.

    Attributes:
        of_run: returns the value, in the unit that the name tells; NaN if the run has none.
        unit: the unit in which the report shows it, such as "MiB".
        scale: what a value is multiplied by to be shown in that unit.
        digits: decimals that are shown of values below 1000.
        paired: whether statistics.csv also has it relative to each rival, run by run.
        in_report: whether the report's table shows the median with its interval, the median
            alone, or nothing.
        of_devices: whether it measures what devices do, so that a run in which one process plays
            the stages of several has none.
        of_seed: whether the seed determines it, whenever a run is trained.
        of_target: whether it tells how a campaign's target is reached. It then follows from the
            runs of a race together (`reaching.py`), and `of_run` returns NaN.
    """

    of_run: Callable[[RunResult], float]
    unit: str = ""
    scale: float = 1.0
    digits: int = 2
    paired: bool = True
    in_report: Literal["interval", "median", "no"] = "interval"
    of_devices: bool = False
    of_seed: bool = False
    of_target: bool = False

    @property
    def heading(self) -> str:
        """The title with the unit; percentages carry their sign in every cell instead."""
        return self.title if self.unit in {"", "%"} else f"{self.title}, {self.unit}"

    @property
    def suffix(self) -> str:
        """What follows a shown value within a cell."""
        return " %" if self.unit == "%" else ""

    def decimals(self, value: float) -> int:
        """Return how many decimals are shown of a value and of the interval around it."""
        return 0 if abs(self.scale * value) >= 1000 else self.digits

    def value(self, result: RunResult, run: str) -> float:
        """Return the value of a run; `run` names it in errors.

        Raises:
            InputError: if the function of a user's metric fails or returns no number.
        """
        try:
            value = self.of_run(result)
        except Exception as error:
            raise InputError(
                f"metric {self.name} fails on the result of {run} ({type(error).__name__}: "
                f"{error}): correct its function, or return NaN where a run has no value."
            ) from error
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(
                f"metric {self.name} is {value!r} for {run}, accepted is a number: correct its "
                "function, or return NaN where a run has no value."
            )
        return value


def last_of(values: Sequence[float | None]) -> float:
    """Return the last value; NaN if there is none, or it was not finite."""
    last = values[-1] if values else None
    return math.nan if last is None else last


def _adapt(name: str, found: object) -> Metric:
    """Return a user's metric.

    Raises:
        InputError: if it is no `Metric`, or its name cannot name a column.
    """
    metric = expect_type("metric", name, found, Metric)
    taken = metric.name in RUN_COLUMNS or metric.name in BUILT_IN
    if taken or not re.fullmatch(r"[A-Za-z]\w*", metric.name):
        why = "is taken by a column of summary.csv" if taken else "is no name for a column"
        raise InputError(
            f"metric {name!r} calls itself {metric.name!r}, which {why}: accepted is another name "
            "of letters, digits and underscores."
        )
    return metric


BUILT_IN = {
    metric.name: metric
    for metric in (
        Metric(
            "samples_per_second",
            "throughput",
            of_run=lambda result: result.samples_per_second,
            unit="samples/s",
            digits=1,
            of_devices=True,
        ),
        Metric(
            "steps_to_target",
            "steps to target",
            "lower",
            of_run=lambda result: math.nan,
            digits=0,
            in_report="no",  # a table of its own shows it
            of_seed=True,
            of_target=True,
        ),
        Metric(
            "seconds_to_target",
            "time to target",
            "lower",
            of_run=lambda result: math.nan,
            unit="s",
            digits=1,
            in_report="no",
            of_devices=True,
            of_target=True,
        ),
        Metric(
            "training_seconds",
            "training time",
            "lower",
            compared_as=None,  # throughput says the same
            of_run=lambda result: result.training_seconds,
            unit="s",
            digits=1,
            paired=False,
            in_report="no",
            of_devices=True,
        ),
        Metric(
            "test_accuracy",
            "accuracy",
            compared_as="points",
            of_run=lambda result: last_of(result.test_accuracy),
            unit="%",
            scale=100.0,
        ),
        Metric(
            "final_train_loss",
            "final training loss",
            "lower",
            compared_as=None,  # of a single batch
            of_run=lambda result: last_of(result.train_loss),
            digits=4,
            paired=False,
            in_report="no",
        ),
        Metric(
            "peak_memory_bytes",
            "memory",
            "lower",
            of_run=lambda result: max(result.peak_memory_bytes),
            unit="MiB",
            scale=2.0**-20,
            digits=0,
            paired=False,
            in_report="median",
            of_devices=True,
        ),
        Metric(
            "bytes_sent",
            "traffic",
            "lower",
            of_run=lambda result: sum(result.bytes_sent),
            unit="MiB",
            scale=2.0**-20,
            paired=False,
            in_report="no",
            of_devices=True,
        ),
        Metric(
            "idle_share",
            "idle",
            "lower",
            compared_as=None,  # it has no direction across numbers of ranks
            of_run=lambda result: sum(result.idle_share) / len(result.idle_share),
            unit="%",
            scale=100.0,
            digits=0,
            paired=False,
            in_report="median",
            of_devices=True,
        ),
    )
}

METRICS: Registry[Metric] = Registry("metric", "hpc_lpm.metrics", BUILT_IN, _adapt)
"""The metrics by name.

Of the ranks, `peak_memory_bytes` is the maximum, `bytes_sent` the sum and `idle_share` the mean;
`test_accuracy` (0 to 1) and `final_train_loss` are the last ones of a run. `steps_to_target` and
`seconds_to_target` are infinite where a run has not reached its campaign's target.
"""

THROUGHPUT = METRICS.named("samples_per_second")
ACCURACY = METRICS.named("test_accuracy")
MEMORY = METRICS.named("peak_memory_bytes")
TRAFFIC = METRICS.named("bytes_sent")
STEPS_TO_TARGET = METRICS.named("steps_to_target")
SECONDS_TO_TARGET = METRICS.named("seconds_to_target")
TARGET_METRICS = (STEPS_TO_TARGET, SECONDS_TO_TARGET)


OF_EVALUATION = re.compile(r"(test|validation)_(\w+)")
"""The names of metrics of evaluations: the part of the data, and the loss or a metric."""


def _known(name: str) -> str:
    names = METRICS.names()
    if name not in names and ":" not in name and not OF_EVALUATION.fullmatch(name):
        raise ValueError(
            f"metric {name!r} is unknown{closest(name, names)} (accepted are {', '.join(names)}, "
            "test_NAME and validation_NAME for the loss and for metrics of evaluations, and "
            "module:name for one of your own)"
        )
    return name


MetricName = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema(
        {
            "type": "string",
            "anyOf": [
                {"enum": METRICS.names()},
                {"pattern": f"^{OF_EVALUATION.pattern}$"},
                {"pattern": "^[^:]+:[^:]+$"},
            ],
            "description": "a metric of the toolkit, test_NAME or validation_NAME for the loss or "
            "a metric of evaluations, or module:name for one of your own",
        }
    ),
]
"""The name of a metric in a campaign file; `module:name` is imported only when it is computed."""
