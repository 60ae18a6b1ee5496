"""The target of a campaign: the value of a metric that its contestants are to reach."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from hpc_lpm.campaign.metrics import METRICS, OF_EVALUATION
from hpc_lpm.errors import closest
from hpc_lpm.typed_values import TypedModel

TRAIN_LOSS = "train_loss"
"""The loss of every optimizer step, which is smoothed before it is held against a target."""

BASELINE = "baseline"
"""The value that stands for what the campaign's sequential strategy gains."""

_PERCENT = r"([0-9]+(?:\.[0-9]+)?) *%"
"""How a share may be written, such as `95%`."""

_PARTS = ("test", "validation")


def _checked_metric(name: str) -> str:
    if name == TRAIN_LOSS or OF_EVALUATION.fullmatch(name):
        return name
    # Imported here, because it imports torch.
    from hpc_lpm.models.evaluation_metrics import EVALUATION_METRICS

    evaluated = ["loss", *EVALUATION_METRICS.names()]
    offered = [TRAIN_LOSS, *(f"{part}_{each}" for part in _PARTS for each in evaluated)]
    what = "is no curve over steps" if name in METRICS.names() else "is unknown"
    raise ValueError(
        f"target has the metric {name!r}, which {what}{closest(name, offered)} (accepted are "
        f"{', '.join(offered)}, and test_NAME and validation_NAME for further metrics)"
    )


def _checked_value(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == BASELINE or (number and math.isfinite(value)):
        return value
    raise PydanticCustomError(
        "target_value",
        "accepted are a number, and {baseline} for 95 % of what sequential training gains",
        {"baseline": BASELINE},
    )


class Target(TypedModel):
    """The value of a metric that contestants are to reach: how many steps and seconds it takes.

    Accuracies are shares between 0 and 1, of which `95%` is another way to write 0.95.

    `metric` is `train_loss`, which is averaged over the last `window` optimizer steps (by default a
    twentieth of the longest run of a race), or the loss or a metric of evaluations, between which
    straight lines are drawn. `value: baseline` is the value at 95 % of the median gain, from first
    to last, of the runs of the campaign's sequential strategy.
    """

    metric: Annotated[
        str,
        AfterValidator(_checked_metric),
        WithJsonSchema(
            {
                "anyOf": [
                    {"const": TRAIN_LOSS},
                    {"type": "string", "pattern": f"^{OF_EVALUATION.pattern}$"},
                ]
            }
        ),
    ]
    value: Annotated[
        float | Literal["baseline"],
        BeforeValidator(_checked_value),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "number"},
                    {"const": BASELINE},
                    {"type": "string", "pattern": f"^{_PERCENT}$"},
                ]
            }
        ),
    ]
    window: int | None = Field(default=None, gt=0)

    @field_validator("value", mode="before")
    @classmethod
    def _percent_of_shares(cls, value: Any, before: ValidationInfo) -> Any:
        percent = re.fullmatch(_PERCENT, value.strip()) if isinstance(value, str) else None
        if percent is None or "metric" not in before.data:
            return value
        if not is_share(before.data["metric"]):
            raise PydanticCustomError(
                "target_percent",
                "accepted are a number, and {baseline} for 95 % of what sequential training gains: "
                "{metric} is no share, of which percents are",
                {"baseline": BASELINE, "metric": before.data["metric"]},
            )
        return float(percent[1]) / 100

    @property
    def of_evaluations(self) -> tuple[str, str] | None:
        """The part of the data and the name of the metric, None for the training loss."""
        match = OF_EVALUATION.fullmatch(self.metric)
        return None if self.metric == TRAIN_LOSS or match is None else (match[1], match[2])


def is_share(metric: str) -> bool:
    """Tell if a metric is a share between 0 and 1, as accuracies are."""
    return metric.endswith("accuracy")


def target_text(metric: str) -> str:
    """Return what people call the metric of a target, such as `training loss`."""
    if metric == TRAIN_LOSS:
        return "training loss"
    return re.sub("_", " ", metric)
