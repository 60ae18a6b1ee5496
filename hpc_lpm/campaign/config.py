"""The campaign file: what is raced against what, on which data, how often."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hpc_lpm.engine.recovery import PREDICTED_OPTIMIZERS
from hpc_lpm.errors import InputError, closest
from hpc_lpm.files import describe_validation_error
from hpc_lpm.options import (
    ClipScope,
    LearningRateSettings,
    MemoryFormat,
    OptimizerSettings,
    Precision,
    WeightPolicyName,
)

METRICS = (
    "samples_per_second",
    "test_accuracy",
    "training_seconds",
    "peak_memory_bytes",
    "bytes_sent",
    "idle_share",
)
"""The numbers of a run that statistics are taken of and expectations can be put on."""

Names = Annotated[list[str], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Launcher(_Section):
    """What starts the ranks; `options` replace the default options of that launcher."""

    mpi: Literal["mpirun", "srun"] = "mpirun"
    options: list[str] | None = None


class Resources(_Section):
    """What one trial asks a cluster for; without a scheduler nothing is enforced.

    `memory_megabytes` is that of one rank. Memory and time that are not set are derived from
    profile and plan. Without `nodes` the cluster puts ranks where there are free cores.
    """

    memory_megabytes: int | None = Field(default=None, gt=0)
    runtime_minutes: int | None = Field(default=None, gt=0)
    nodes: int | None = Field(default=None, gt=0)


class Expectation(_Section):
    """The median of paired ratios metric(strategy) / metric(relative_to) must reach `at_least`."""

    metric: Literal[
        "samples_per_second",
        "test_accuracy",
        "training_seconds",
        "peak_memory_bytes",
        "bytes_sent",
        "idle_share",
    ]
    strategy: str
    relative_to: str
    at_least: float = Field(gt=0, allow_inf_nan=False)


class Campaign(_Section):
    """A campaign; its trials are the product of models, datasets, strategies, planners and seeds.

    `lead`, `weights`, `prediction` and `synchronous_tail` are the options of the forward-backward
    parallel schedule; `epochs` or `steps` (optimizer steps), one of the two, is the length of every
    trial. `lr_discount` concerns the strategies in which weights lag; `clip_scope` those that have
    a choice.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    models: Names
    datasets: Names
    strategies: Names
    planners: Names = ["lpm"]
    stages: int = Field(default=2, ge=2)
    micro_batches: int = Field(default=4, gt=0)
    batch_size: int = Field(default=64, gt=0)
    optimizer: OptimizerSettings = OptimizerSettings()
    epochs: int | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, gt=0)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    repeats: int = Field(default=1, gt=0)
    precision: Precision = "fp32"
    lead: int = Field(default=1, gt=0)
    weights: WeightPolicyName = "replay"
    launcher: Launcher = Launcher()
    resources: Resources = Resources()
    data_dir: str | None = None
    prediction: bool = False
    synchronous_tail: int = Field(default=0, ge=0)
    expect: list[Expectation] = []
    learning_rate: LearningRateSettings = LearningRateSettings()
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    clip_scope: ClipScope = "stage"
    lr_discount: bool = False
    memory_format: MemoryFormat = "contiguous"

    @property
    def micro_batch(self) -> int:
        """Samples in one micro-batch."""
        return self.batch_size // self.micro_batches

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            found = "neither is" if self.epochs is None else "both are"
            raise ValueError(f"epochs or steps must be set, one of the two, but {found}")
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by micro_batches "
                f"{self.micro_batches}, every micro-batch must hold as many samples"
            )
        if self.prediction and self.optimizer.name not in PREDICTED_OPTIMIZERS:
            raise ValueError(
                f"prediction is set with optimizer {self.optimizer.name!r}, accepted with it are "
                f"{' and '.join(PREDICTED_OPTIMIZERS)}"
            )
        if self.epochs is not None and self.synchronous_tail > self.epochs:
            raise ValueError(
                f"synchronous_tail {self.synchronous_tail} is longer than the trials, which have "
                f"epochs: {self.epochs}"
            )
        for key in ("models", "datasets", "strategies", "planners", "seeds"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names something twice, once each is accepted")
        for expectation in self.expect:
            for strategy in (expectation.strategy, expectation.relative_to):
                if strategy not in self.strategies:
                    raise ValueError(
                        f"expect names strategy {strategy!r}, which is not among the "
                        f"strategies of the campaign ({', '.join(self.strategies)})"
                    )
        return self


_SECTIONS: dict[str, type[BaseModel]] = {
    "optimizer": OptimizerSettings,
    "learning_rate": LearningRateSettings,
    "launcher": Launcher,
    "resources": Resources,
    "expect": Expectation,
}


def read_campaign(path: Path) -> Campaign:
    """Read a campaign file (YAML, or the JSON that a campaign folder keeps).

    Raises:
        InputError: if the file is missing, is not YAML, or does not hold a valid campaign.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"campaign file {path} does not exist: name an existing file, such as "
            "config/quick.yaml."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"campaign file {path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise InputError(f"campaign file {path} is not YAML ({reason}): correct it.") from None
    return campaign_from_document(document, str(path))


def campaign_from_document(document: object, where: str) -> Campaign:
    """Validate a parsed campaign file; `where` names it in errors.

    Raises:
        InputError: if a key is unknown or missing, or a value is not accepted.
    """
    if not isinstance(document, dict):
        raise InputError(
            f"campaign file {where} holds no keys where at least name, models, datasets, "
            "strategies and epochs are expected: start from config/quick.yaml."
        )
    try:
        return Campaign.model_validate(document)
    except ValidationError as error:
        raise InputError(f"campaign file {where}: {_sentence(error)}.") from None


def campaign_schema() -> dict[str, Any]:
    """Return the JSON schema of the campaign file, for editors."""
    return Campaign.model_json_schema()


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        owner = _SECTIONS.get(location[0], Campaign) if len(location) > 1 else Campaign
        accepted = list(owner.model_fields)
        section = f" in {'.'.join(location[:-1])}" if len(location) > 1 else ""
        hint = closest(location[-1], accepted)
        return (
            f"unknown key {location[-1]!r}{section}{hint} (accepted are "
            f"{', '.join(accepted)}): correct or remove it"
        )
    if first["type"] == "value_error":
        return f"{first['msg'].removeprefix('Value error, ')}: correct it"
    found = f", found {first['input']!r}" if first["type"] != "missing" else ""
    return f"{describe_validation_error(error)}{found}: correct it"
