"""What a run can be asked for, defined once: the settings that every strategy shares.

Plain Python without torch: campaign files are read with it.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hpc_lpm.errors import InputError
from hpc_lpm.files import describe_validation_error

Precision = Literal["fp32", "bf16"]
MemoryFormat = Literal["contiguous", "channels_last"]
ClipScope = Literal["stage", "global"]
WeightPolicyName = Literal["replay", "live", "stash"]
LastBatch = Literal["drop", "keep"]
TransportName = Literal["auto", "mpi", "torch"]
OptimizerOption = bool | int | float | tuple[float, ...]


class OptimizerSettings(BaseModel):
    """An optimizer of torch by its common name or its class name, in upper or lower case.

    `momentum` matters to the optimizer `momentum` alone. `options` are further arguments of the
    class, such as `nesterov`; `check_optimizer` refuses what it does not take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "momentum"
    lr: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    options: dict[str, OptimizerOption] = {}


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


class TrainSettings(BaseModel):
    """Settings of one run; `batch_size` counts the samples of one optimizer step over all ranks.

    `micro_batches` is per step and, where stages have replicas, per replica.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    dataset: str
    strategy: str
    plan: Path | None = None
    batch_size: int = Field(default=64, gt=0)
    micro_batches: int = Field(default=4, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)
    optimizer: OptimizerSettings = OptimizerSettings()
    lead: int = Field(default=1, gt=0)
    weights: WeightPolicyName = "replay"
    data_dir: Path | None = None
    threads: int = Field(default=1, gt=0)
    receive_timeout_seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    discard_steps: int = Field(default=2, ge=0)
    trace_steps: int = Field(default=16, ge=0)
    last_batch: LastBatch = "drop"
    prediction: bool = False
    synchronous_tail: int = Field(default=0, ge=0)
    learning_rate: LearningRateSettings = LearningRateSettings()
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    clip_scope: ClipScope = "stage"
    lr_discount: bool = False
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    transport: TransportName = "auto"
    progress_thread: bool | None = None
    drain_at: tuple[Annotated[int, Field(gt=0)], ...] = ()
    checkpoint_epochs: int = Field(default=1, ge=0)
    checkpoint_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch size {self.batch_size} is not divisible by "
                f"{self.micro_batches} micro-batches"
            )
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of epochs and steps is needed")
        if self.progress_thread and self.transport == "torch":
            raise ValueError("progress thread is for transport mpi, torch makes progress itself")
        if any(b <= a for a, b in pairwise(self.drain_at)):
            raise ValueError(f"drain at must ascend, found {list(self.drain_at)}")
        return self

    @property
    def micro_batch_size(self) -> int:
        """Samples of a micro-batch where stages have no replicas."""
        return self.batch_size // self.micro_batches


def checked_settings(**values: object) -> TrainSettings:
    """Return validated settings.

    Raises:
        InputError: naming the first option that is wrong, and what is accepted.
    """
    try:
        return TrainSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            # A fault between several options says itself what they are.
            problem, found = first["msg"].removeprefix("Value error, "), ""
        else:
            problem, found = describe_validation_error(error), f", found {first['input']!r}"
        raise InputError(f"train: {problem}{found}: change the option and run again.") from None


def flatten_settings(document: Mapping[str, object]) -> dict[str, object]:
    """Flatten a settings document to dotted names, such as `optimizer.lr`."""
    flat: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": part for inner, part in flatten_settings(value).items()}
        else:
            flat[name] = value
    return flat
