"""What one training run is asked to do."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hpc_lpm.errors import InputError
from hpc_lpm.files import describe_validation_error

WeightPolicyName = Literal["replay", "live", "stash"]
OptimizerName = Literal["sgd", "momentum", "adam", "adamw"]


class OptimizerSettings(BaseModel):
    """An optimizer of torch by its common name; `momentum` matters to `momentum` alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: OptimizerName = "momentum"
    lr: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)


class TrainSettings(BaseModel):
    """Settings of one run; `batch_size` counts the samples of one optimizer step over all ranks."""

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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch size {self.batch_size} is not divisible by "
                f"{self.micro_batches} micro-batches"
            )
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("exactly one of epochs and steps is needed")
        return self

    @property
    def micro_batch_size(self) -> int:
        """Samples a micro-batch."""
        return self.batch_size // self.micro_batches


def checked_settings(**values: object) -> TrainSettings:
    """Return validated settings.

    Raises:
        InputError: naming the first option that is wrong, and what is accepted.
    """
    try:
        return TrainSettings.model_validate(values)
    except ValidationError as error:
        problem = describe_validation_error(error).replace("the whole file: value error, ", "")
        first = error.errors()[0]
        # A fault between several options says itself what they are.
        found = f", found {first['input']!r}" if first["loc"] else ""
        raise InputError(f"train: {problem}{found}: change the option and run again.") from None
