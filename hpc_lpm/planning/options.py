"""The options of a plan: what a planner may assume about training and the devices."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpc_lpm.errors import InputError
from hpc_lpm.optimizer_names import check_optimizer_name
from hpc_lpm.options import DEFAULT_WEIGHT_POLICY, OptimizerSettings, PlannedPolicyName
from hpc_lpm.prediction_rules import PredictionRule
from hpc_lpm.profile_file import Link
from hpc_lpm.recipes import NO_RECIPE
from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, schedule_named
from hpc_lpm.typed_values import describe_validation_error

Optimizer = Literal["sgd", "momentum", "adam", "adamw", "muon", "other"]
OTHER_OPTIMIZER: Optimizer = "other"

OPTIMIZER_COPIES: dict[str, int] = {
    "sgd": 0,
    "momentum": 1,
    "adam": 2,
    "adamw": 2,
    "muon": 2,
    OTHER_OPTIMIZER: 2,
}
"""Copies of the parameters that each optimizer keeps as its state, of matrices see below.

No optimizer of torch keeps more than two, except RMSprop when it is both centered and with
momentum, and Adam with `amsgrad`, which keep three.
"""


MATRIX_COPIES: dict[str, int] = {**OPTIMIZER_COPIES, "muon": 1}
"""The same for parameters that are matrices: Muon keeps their momentum alone."""


def planned_optimizer(optimizer: OptimizerSettings | str) -> str:
    """Return the name by which a plan knows what memory the optimizer's state takes.

    Args:
        optimizer: its settings, or its name as training takes it.
    """
    name = (optimizer if isinstance(optimizer, str) else optimizer.name).lower()
    return name if name in OPTIMIZER_COPIES else OTHER_OPTIMIZER


def asked_optimizer(name: str) -> str:
    """Return the planned name of an optimizer that a user typed.

    Raises:
        InputError: if training takes no such optimizer, and it is not `other` either.
    """
    try:
        check_optimizer_name(name, besides=(OTHER_OPTIMIZER,))
    except InputError as error:
        raise InputError(f"plan option {error}") from None
    return planned_optimizer(name)


MOST_IN_A_STEP, MOST_DEVICES = 100_000, 2**16
"""More micro-batches than any optimizer step has, and more devices than a model is trained on."""

TRIED_CHUNKS = (2, 3, 4)
"""How many stages a device holds where a search chooses it, under a schedule that takes any."""

Bytes = Annotated[int, Field(gt=0)]
Speed = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]


class PlanOptions(BaseModel):
    """Options of a plan.

    Attributes:
        tolerance: the share of the least period that may be given up for fewer boundary bytes.
        memory_limit: bytes, one number for all stages or one for each.
        schedule: the name of the schedule that is to run the plan.
        lead: micro-batches that each stage runs ahead of the next; some schedules take none.
        micro_batches: how many make an optimizer step, on one replica.
        weights: what is done about weights that lag; nothing lags where a schedule flushes.
        optimizer: whose state each device holds.
        overlap: whether transfers hide behind compute; None lets the profile's link decide.
        speeds: of every stage's device, relative to the profiled one.
        links: those between stages k and k + 1 for all boundaries, in order; None gives every
            boundary the profile's.
        replicas: how many copies of every stage train, each on its share of a step.
        global_batch: the samples of a step over all replicas; None where it is not fixed.
        prediction_rule: how weights are predicted that a lagged forward sees; None if they are not.
        recipe: the bundle of corrections for lagged weights that training is to use, by which it is
            told what a step is worth.
        cut_only_at: patterns of the layers and modules behind which cuts may be; empty for all.
        chunks: how many stages each device holds, where the schedule lets the user choose; None for
            as many as the schedule places there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tolerance: float = Field(default=0.02, ge=0, allow_inf_nan=False)
    memory_limit: Bytes | tuple[Bytes, ...] | None = None
    schedule: str = DEFAULT_SCHEDULE
    lead: int = Field(default=1, ge=1, le=MOST_IN_A_STEP)
    micro_batches: int = Field(default=4, ge=1, le=MOST_IN_A_STEP)
    weights: PlannedPolicyName = DEFAULT_WEIGHT_POLICY
    optimizer: Optimizer = "momentum"
    overlap: bool | None = None
    speeds: tuple[Speed, ...] | None = None
    links: tuple[Link, ...] | None = None
    replicas: int = Field(default=1, ge=1, le=2**20)
    global_batch: int | None = Field(default=None, ge=1)
    prediction_rule: PredictionRule | None = None
    recipe: str = NO_RECIPE
    cut_only_at: tuple[str, ...] = ()
    chunks: int | None = Field(default=None, ge=1)

    @property
    def scheduled(self) -> Schedule:
        """The schedule, with the chunks that are asked for.

        Raises:
            InputError: if there is none of that name, or it does not take these chunks.
        """
        return schedule_named(self.schedule).with_chunks(self.chunks)

    def stages_on(self, devices: int) -> int:
        """Return how many stages a plan for so many devices has.

        Raises:
            InputError: as `scheduled`.
        """
        return devices * self.scheduled.chunks

    @classmethod
    def checked(cls, /, **values: object) -> "PlanOptions":
        """Build options from values that a user typed.

        Raises:
            InputError: if a value is not accepted; the sentence names the option.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"plan option {describe_validation_error(error)}.") from None
