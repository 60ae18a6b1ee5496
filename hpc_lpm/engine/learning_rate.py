"""The learning rate as a function of an update's index alone.

Stages that update at different times thus still agree on the rate of every update, without a
message. Plain Python without torch: campaign files are read with it.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LearningRateSettings(BaseModel):
    """How the learning rate changes from update to update, as factors of the optimizer's rate.

    `warmup_steps` updates of linear warm-up come before any schedule. `final_factor` matters to
    `linear` and `cosine` alone; `factor` is applied at each of the `milestones` (indices of
    updates, counted from 0) of `step`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Literal["constant", "linear", "cosine", "step"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final_factor: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    milestones: tuple[Annotated[int, Field(gt=0)], ...] = ()
    factor: float = Field(default=0.1, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_its_milestones(self) -> Self:
        if self.schedule == "step" and not self.milestones:
            raise ValueError("learning rate schedule step needs milestones, none was given")
        if self.schedule != "step" and self.milestones:
            raise ValueError(
                f"milestones belong to learning rate schedule step, found {self.schedule}"
            )
        if any(b <= a for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ValueError(f"milestones must ascend, found {list(self.milestones)}")
        if self.milestones and self.milestones[0] < self.warmup_steps:
            raise ValueError(
                f"milestone {self.milestones[0]} lies within the {self.warmup_steps} updates of "
                "warm-up, where the rate still rises"
            )
        return self


def rate_factor(settings: LearningRateSettings, update: int, updates: int) -> float:
    """Return by what the optimizer's rate is multiplied at one update.

    With w updates of warm-up the first w factors are 1/w, 2/w, ..., 1. After them `linear` and
    `cosine` (Loshchilov and Hutter, SGDR, 2017, without restarts) go from 1 towards the final
    factor, which they would reach with the update after the last; `step` multiplies once for every
    milestone passed.

    Args:
        settings: the schedule.
        update: index of the update, from 0; the number of updates before it.
        updates: number of updates of the whole training, more than those of the warm-up.
    """
    warmup = settings.warmup_steps
    if update < warmup:
        return (update + 1) / warmup
    done = (update - warmup) / (updates - warmup)
    final = settings.final_factor
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 + (final - 1.0) * done
        case "cosine":
            return final + (1.0 - final) * (1.0 + math.cos(math.pi * done)) / 2.0
        case "step":
            passed = sum(milestone <= update for milestone in settings.milestones)
            return math.prod([settings.factor] * passed)
