"""What a planner may assume about training and about the devices."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpc_lpm.errors import InputError
from hpc_lpm.files import describe_validation_error
from hpc_lpm.profile import Link

WeightPolicy = Literal["replay", "live", "stash"]
Optimizer = Literal["sgd", "momentum", "adam", "adamw", "other"]
OTHER_OPTIMIZER: Optimizer = "other"

OPTIMIZER_COPIES: dict[str, int] = {
    "sgd": 0,
    "momentum": 1,
    "adam": 2,
    "adamw": 2,
    OTHER_OPTIMIZER: 2,
}
"""Copies of the parameters that each optimizer keeps as its state.

Two is what the optimizers of torch keep at most, but for RMSprop centered and with momentum, and
for `amsgrad`, which keep three.
"""

Bytes = Annotated[int, Field(gt=0)]
Speed = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PlanOptions(BaseModel):
    """Options of a plan.

    `tolerance` is the share of the least period that may be given up for fewer boundary bytes.
    `memory_limit` [bytes] is one number for all stages or one a stage. `lead` and `micro_batches`
    (an optimizer step) are those of the schedule. `overlap` tells if transfers hide behind compute;
    without a value the profile's link decides. `speeds` are relative to the profiled device, one a
    stage. `links` are those between stage k and k + 1, one a boundary; without them all boundaries
    have the profile's. `replicas` is how many copies of every stage train, each on its share of a
    step, `global_batch` the samples of a step over all of them; without a value nobody fixed it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tolerance: float = Field(default=0.02, ge=0, allow_inf_nan=False)
    memory_limit: Bytes | tuple[Bytes, ...] | None = None
    lead: int = Field(default=1, ge=1)
    micro_batches: int = Field(default=4, ge=1)
    weights: WeightPolicy = "replay"
    optimizer: Optimizer = "momentum"
    overlap: bool | None = None
    speeds: tuple[Speed, ...] | None = None
    links: tuple[Link, ...] | None = None
    replicas: int = Field(default=1, ge=1)
    global_batch: int | None = Field(default=None, ge=1)

    @classmethod
    def checked(cls, **values: object) -> "PlanOptions":
        """Build options from values that a user typed.

        Raises:
            InputError: if a value is not accepted; the sentence names the option.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"plan option {describe_validation_error(error)}.") from None
