"""The options that the runs of all strategies share, defined once.

The command line, settings files and campaign files are generated from these definitions and from
the options that a strategy declares for itself (`StrategyOptions`). This module does not import
torch, so that campaign files can be read without it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator
from pydantic.fields import FieldInfo

from hpc_lpm.documents import plain_number
from hpc_lpm.quantities import Seconds
from hpc_lpm.typed_values import TypedModel

Precision = Literal["fp32", "bf16"]
MemoryFormat = Literal["contiguous", "channels_last"]
ClipScope = Literal["stage", "global"]
NonFinite = Literal["stop", "skip", "rewind"]
WeightPolicyName = Literal["replay", "live", "stash"]
PlannedPolicyName = Literal["replay", "live", "stash", "double-buffer"]
"""The weight policies that a plan can be made for; `double-buffer` defines a strategy."""
DOUBLE_BUFFER: PlannedPolicyName = "double-buffer"
LAG_OF_DOUBLE_BUFFER = 1
"""Updates by which every stage lags, the last too, where it is run under the weights before."""
Normalization = Literal["dataset", "channels", "none"]
LastBatch = Literal["drop", "keep"]
PatienceMode = Literal["min", "max"]
TransportName = Literal["auto", "mpi", "torch"]
ArgumentValue = bool | int | float | tuple[float, ...] | str
"""What may be given as an argument of an optimizer or of a schedule of learning rates."""

SCHEDULES_OF_RATES = ("constant", "linear", "cosine", "step")

MAX_SEED = 2**63 - 1
"""The largest seed; tables hold it as a signed number of 64 bits."""

DEFAULT_WEIGHT_POLICY: WeightPolicyName = "live"
"""What plans and strategies do about weights that lag unless told otherwise: what costs nothing."""

MOST_THREADS, MOST_LOADER_WORKERS = 1024, 1024
"""More threads or processes than any node has a use for exhaust it, or torch ends by a fault."""

ACCURACY = "accuracy"
"""The name of the metric that results and tables lead with where there is one."""

RUN = "What to train"
LENGTH = "Length"
BATCHES = "Batches and data"
OBJECTIVE = "Loss and metrics"
UPDATES = "Optimizer and learning rate"
GRADIENTS = "Gradients"
COMPUTING = "Computing"
EVALUATION = "Evaluation and early stopping"
CHECKPOINTS = "Drains, checkpoints and traces"
TRACKING = "Tracking"


@dataclass(frozen=True)
class CommandOption:
    """The command-line option of a settings field.

    Args:
        panel: the heading under which the help lists the option.
        name: the option's name without dashes, where it differs from the field's.
        metavar: the placeholder that the help shows for the value.
        computes: False if the option does not change what is computed, or only where; a run may
            then be resumed with another value.
        in_results: False if nothing that a run measures or computes depends on the option; a
            campaign then keeps its runs when the value changes.
        settled: whether `Strategy.settled` may change the value where a run starts, so that its
            result may have another one than it was asked for.
    """

    panel: str
    name: str | None = None
    metavar: str | None = None
    computes: bool = True
    in_results: bool = True
    settled: bool = False


class OptimizerSettings(TypedModel):
    """An optimizer of torch, by its common name or its class name in upper or lower case.

    `module:name` is one of the user's own: a class, or a function that makes one. `momentum` only
    matters to the optimizer `momentum`. `options` are further arguments of the class, such as
    `nesterov`; `check_optimizer` refuses arguments that the class does not take.
    """

    name: Annotated[
        str,
        Field(
            description="sgd, momentum, adam, adamw, muon, a class of torch.optim, or module:name"
        ),
        CommandOption(UPDATES, "optimizer", "NAME"),
    ] = "momentum"
    lr: Annotated[
        float,
        Field(gt=0, description="learning rate"),
        CommandOption(UPDATES, "lr", "RATE"),
    ] = 0.1
    momentum: Annotated[
        float,
        Field(ge=0, lt=1, description="momentum of the optimizer momentum"),
        CommandOption(UPDATES, "momentum", "X"),
    ] = 0.9
    weight_decay: Annotated[
        float,
        Field(ge=0, description="weight decay"),
        CommandOption(UPDATES, "weight-decay", "X"),
    ] = 0.0
    options: Annotated[
        dict[str, ArgumentValue],
        Field(description="another argument of the optimizer's class; repeatable"),
        CommandOption(UPDATES, "optimizer-option", "NAME=VALUE"),
    ] = {}  # noqa: RUF012
    no_decay: Annotated[
        tuple[str, ...],
        Field(
            description="parameters without weight decay: a pattern of names, or norm-and-bias; "
            "repeatable"
        ),
        CommandOption(UPDATES, "no-decay", "PATTERN"),
    ] = ()
    lr_scale: Annotated[
        tuple[str, ...],
        Field(
            description="factor on the learning rate of parameters by a pattern of names; "
            "repeatable, the last that matches counts"
        ),
        CommandOption(UPDATES, "lr-scale", "PATTERN=X"),
    ] = ()

    @model_validator(mode="after")
    def _scales_are_factors(self) -> Self:
        for text in self.lr_scale:
            pattern, _, factor = text.rpartition("=")
            try:
                accepted = bool(pattern) and 0 <= plain_number(factor) < math.inf
            except ValueError:
                accepted = False
            if not accepted:
                raise ValueError(
                    f"lr scale is {text!r}, accepted is PATTERN=FACTOR with a factor from 0, such "
                    "as 'head.*=10'"
                )
        return self

    @property
    def lr_scales(self) -> list[tuple[str, float]]:
        """The patterns of `lr_scale` with their factors, in order."""
        parted = (text.rpartition("=") for text in self.lr_scale)
        return [(pattern, float(factor)) for pattern, _, factor in parted]


class LearningRateSettings(TypedModel):
    """How the learning rate changes from update to update, as factors of the optimizer's rate.

    `warmup_steps` updates of linear warm-up precede any schedule. `final_factor` only matters to
    `linear` and `cosine`; `step` multiplies the rate by `factor` at each of the `milestones`
    (indices of updates, counted from 0). `module:name` is a schedule of the user's own, which takes
    `options` as arguments.
    """

    schedule: Annotated[
        str,
        Field(description="constant, linear, cosine, step, or module:name"),
        CommandOption(UPDATES, "lr-schedule", "NAME"),
    ] = "constant"
    options: Annotated[
        dict[str, ArgumentValue],
        Field(description="an argument of a schedule of one's own; repeatable"),
        CommandOption(UPDATES, "lr-schedule-option", "NAME=VALUE"),
    ] = {}  # noqa: RUF012
    warmup_steps: Annotated[
        int,
        Field(ge=0, description="optimizer steps of linear warm-up"),
        CommandOption(UPDATES, "warmup-steps", "N"),
    ] = 0
    final_factor: Annotated[
        float,
        Field(
            ge=0,
            description="share of the rate that linear and cosine end at",
        ),
        CommandOption(UPDATES, "lr-final-factor", "X"),
    ] = 0.0
    milestones: Annotated[
        tuple[Annotated[int, Field(gt=0)], ...],
        Field(description="optimizer steps at which schedule step lowers the rate"),
        CommandOption(UPDATES, "lr-milestones", "N,N,..."),
    ] = ()
    factor: Annotated[
        float,
        Field(gt=0, description="schedule step multiplies the rate by this"),
        CommandOption(UPDATES, "lr-factor", "X"),
    ] = 0.1

    @property
    def is_own(self) -> bool:
        """Whether the schedule is one of the user's own."""
        return ":" in self.schedule

    @model_validator(mode="after")
    def _is_known_or_own(self) -> Self:
        if self.schedule not in SCHEDULES_OF_RATES and not self.is_own:
            raise ValueError(
                f"learning rate schedule {self.schedule!r} is unknown: accepted are "
                f"{', '.join(SCHEDULES_OF_RATES)}, and module:name for one of your own"
            )
        if self.options and not self.is_own:
            raise ValueError(
                f"learning rate schedule {self.schedule} takes no options, found "
                f"{', '.join(self.options)}: they belong to a schedule of your own, module:name"
            )
        if self.warmup_steps and self.is_own:
            raise ValueError(
                f"learning rate schedule {self.schedule} is your own and sets the rate of every "
                f"update, found {self.warmup_steps} updates of warm-up: let it warm up itself"
            )
        return self

    @model_validator(mode="after")
    def _has_its_milestones(self) -> Self:
        if self.schedule == "step" and not self.milestones:
            raise ValueError("learning rate schedule step needs milestones, none was given")
        if self.schedule != "step" and self.milestones:
            raise ValueError(
                f"milestones belong to learning rate schedule step, found {self.schedule}"
            )
        if any(b <= a for a, b in pairwise(self.milestones)):
            raise ValueError(f"milestones must ascend, found {list(self.milestones)}")
        if self.milestones and self.milestones[0] < self.warmup_steps:
            raise ValueError(
                f"milestone {self.milestones[0]} lies within the {self.warmup_steps} updates of "
                "warm-up, where the rate still rises"
            )
        return self


class StrategyOptions(TypedModel):
    """Base class of the options that a strategy declares for itself.

    A subclass declares fields as `RunOptions` does. They become command-line options, keys of
    settings files and keys of campaign files. A strategy without options of its own uses this class
    unchanged.
    """

    @property
    def left_to_the_run(self) -> frozenset[str]:
        """The options whose values are chosen when the run starts, and are not set before."""
        return frozenset()

    def drains(self, steps: int, steps_an_epoch: int) -> tuple[int, ...]:
        """Return the optimizer steps after which the strategy itself drains inside a run.

        Args:
            steps: the number of steps of the run.
            steps_an_epoch: the number of steps of a whole epoch.
        """
        return ()


class RunOptions(TypedModel):
    """The options of a run that all strategies share and a campaign may set.

    `batch_size` counts the samples of one optimizer step over all ranks; `micro_batches` is per
    step and, where stages have replicas, per replica.
    """

    batch_size: Annotated[
        int,
        Field(gt=0, description="samples of an optimizer step, over all ranks"),
        CommandOption(BATCHES, metavar="N"),
    ] = 64
    micro_batches: Annotated[
        int,
        Field(gt=0, description="micro-batches of an optimizer step"),
        CommandOption(BATCHES, metavar="N"),
    ] = 4
    epochs: Annotated[
        int | None,
        Field(gt=0, description="epochs to train"),
        CommandOption(LENGTH, metavar="N"),
    ] = None
    steps: Annotated[
        int | None,
        Field(gt=0, description="optimizer steps to train, instead of epochs"),
        CommandOption(LENGTH, metavar="N"),
    ] = None
    last_batch: Annotated[
        LastBatch,
        Field(description="drop or keep the smaller batch at the end of an epoch"),
        CommandOption(BATCHES, metavar="NAME"),
    ] = "drop"
    data_dir: Annotated[
        Path | None,
        Field(description="folder in which data sets are looked for"),
        CommandOption(BATCHES, metavar="DIR", computes=False, in_results=False),
    ] = None
    loader_workers: Annotated[
        int,
        Field(
            ge=0,
            le=MOST_LOADER_WORKERS,
            description="processes that load samples ahead of each rank; 0: the rank",
        ),
        CommandOption(BATCHES, metavar="N", computes=False),
    ] = 0
    augment: Annotated[
        str | None,
        Field(description="random changes of training images: crop=PIXELS, flip, or both"),
        CommandOption(BATCHES, metavar="crop=4,flip"),
    ] = None
    normalize: Annotated[
        Normalization,
        Field(
            description="images by one mean and deviation, by those of each channel, or not at all"
        ),
        CommandOption(BATCHES, metavar="NAME"),
    ] = "dataset"
    validation: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="share of the training samples, drawn by the seed, to validate on",
        ),
        CommandOption(BATCHES, metavar="SHARE"),
    ] = 0.0
    loss: Annotated[
        str | None,
        Field(description="a loss by name, or module:function; by default what suits the data"),
        CommandOption(OBJECTIVE, metavar="NAME"),
    ] = None
    metric: Annotated[
        tuple[str, ...],
        Field(description="another metric by name, or module:function; repeatable"),
        CommandOption(OBJECTIVE, metavar="NAME"),
    ] = ()
    evaluate_every: Annotated[
        int,
        Field(
            ge=0,
            description="drain and evaluate on the validation (else test) part every N optimizer "
            "steps too; 0: after epochs alone",
        ),
        CommandOption(EVALUATION, metavar="N"),
    ] = 0
    patience: Annotated[
        int,
        Field(ge=0, description="stop after N evaluations without improvement; 0: never"),
        CommandOption(EVALUATION, metavar="N"),
    ] = 0
    patience_metric: Annotated[
        str | None,
        Field(description="what is to improve: loss (by default) or the name of a metric"),
        CommandOption(EVALUATION, metavar="NAME"),
    ] = None
    patience_mode: Annotated[
        PatienceMode | None,
        Field(description="min or max, if lower or higher is better; by default as suits it"),
        CommandOption(EVALUATION, metavar="NAME"),
    ] = None
    keep_best: Annotated[
        bool,
        Field(description="keep a checkpoint of the best evaluation, in OUT/best"),
        CommandOption(EVALUATION, computes=False),
    ] = False
    init_from: Annotated[
        Path | None,
        Field(description="safetensors file of weights to start from"),
        CommandOption(RUN, metavar="FILE"),
    ] = None
    optimizer: OptimizerSettings = OptimizerSettings()
    learning_rate: LearningRateSettings = LearningRateSettings()
    clip_norm: Annotated[
        float | None,
        Field(gt=0, description="largest 2-norm of the gradients"),
        CommandOption(GRADIENTS, metavar="X"),
    ] = None
    clip_scope: Annotated[
        ClipScope | None,
        Field(
            description="clip by the norm of all stages (global), or by that of each (stage); by "
            "default global where every step drains"
        ),
        CommandOption(GRADIENTS, metavar="NAME"),
    ] = None
    non_finite: Annotated[
        NonFinite,
        Field(
            description="stop at a loss that is infinite or not a number, skip the updates whose "
            "gradients are, or rewind to the last checkpoint"
        ),
        CommandOption(GRADIENTS, metavar="NAME"),
    ] = "stop"
    rewinds: Annotated[
        int,
        Field(ge=1, description="how often a run rewinds before it stops (--non-finite rewind)"),
        CommandOption(GRADIENTS, metavar="N", computes=False),
    ] = 3
    log_norms: Annotated[
        int,
        Field(
            ge=0,
            description="log the norms of gradients and weights every N optimizer steps; 0: never",
        ),
        CommandOption(GRADIENTS, metavar="N", computes=False),
    ] = 0
    precision: Annotated[
        Precision,
        Field(description="fp32, or bf16: layers and loss under torch's autocast"),
        CommandOption(COMPUTING, metavar="NAME"),
    ] = "fp32"
    memory_format: Annotated[
        MemoryFormat,
        Field(description="contiguous or channels_last, of images and their weights"),
        CommandOption(COMPUTING, metavar="NAME"),
    ] = "contiguous"
    threads: Annotated[
        int,
        Field(gt=0, le=MOST_THREADS, description="threads of each rank"),
        CommandOption(COMPUTING, metavar="N", computes=False),
    ] = 1
    receive_timeout_seconds: Annotated[
        Seconds,
        Field(description="time after which a silent neighbour ends the run, in seconds or as 10m"),
        CommandOption(COMPUTING, "receive-timeout", "TIME", computes=False, in_results=False),
    ] = 600.0
    drain_at: Annotated[
        tuple[Annotated[int, Field(gt=0)], ...],
        Field(description="optimizer steps to drain at, as an interrupted run did"),
        CommandOption(CHECKPOINTS, metavar="N,N,..."),
    ] = ()
    checkpoint_epochs: Annotated[
        int,
        Field(ge=0, description="save every N epochs and at the end; 0: only if interrupted"),
        CommandOption(CHECKPOINTS, metavar="N", computes=False, in_results=False),
    ] = 1
    checkpoint_steps: Annotated[
        int,
        Field(ge=0, description="drain and save every N optimizer steps too; 0: never"),
        CommandOption(CHECKPOINTS, metavar="N"),
    ] = 0
    keep_checkpoints: Annotated[
        int,
        Field(ge=1, description="newest checkpoints to keep; a damaged one falls back to another"),
        CommandOption(CHECKPOINTS, metavar="N", computes=False, in_results=False),
    ] = 2
    discard_steps: Annotated[
        int,
        Field(ge=0, description="first optimizer steps to leave out of the speed"),
        CommandOption(CHECKPOINTS, metavar="N", computes=False),
    ] = 2
    trace_steps: Annotated[
        int,
        Field(ge=0, description="optimizer steps that trace.json shows"),
        CommandOption(CHECKPOINTS, metavar="N", computes=False),
    ] = 16
    trace_from: Annotated[
        int | None,
        Field(
            ge=0,
            description="optimizer step, counted from 0, from which trace.json shows them; by "
            "default the first after the last drain",
        ),
        CommandOption(CHECKPOINTS, metavar="STEP", computes=False),
    ] = None

    tracker: Annotated[
        tuple[str, ...],
        Field(description="tensorboard, or module:callable; repeatable"),
        CommandOption(TRACKING, metavar="NAME", computes=False, in_results=False),
    ] = ()

    @property
    def micro_batch_size(self) -> int:
        """Samples per micro-batch where stages have no replicas."""
        return self.batch_size // self.micro_batches


@dataclass(frozen=True)
class DescribedField:
    """A settings field and its command-line option; `path` ends with the field's name.

    The names before it are the sections that hold the field, such as `optimizer`.
    """

    path: tuple[str, ...]
    info: FieldInfo
    option: CommandOption

    @property
    def option_name(self) -> str:
        """The name on the command line, such as `--batch-size`."""
        return f"--{self.option.name or self.path[-1].replace('_', '-')}"


def described_fields(
    settings: type[BaseModel], section: tuple[str, ...] = ()
) -> Iterator[DescribedField]:
    """Yield the fields that have a command-line option, including those of nested sections."""
    for name, info in settings.model_fields.items():
        option = next((item for item in info.metadata if isinstance(item, CommandOption)), None)
        if option is not None:
            yield DescribedField((*section, name), info, option)
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from described_fields(info.annotation, (*section, name))


def option_name(field: str, *settings: type[BaseModel]) -> str:
    """Return the command-line name of a field, such as `--data-dir` for `data_dir`."""
    for described in (item for each in settings for item in described_fields(each)):
        if ".".join(described.path) == field:
            return described.option_name
    return f"--{field.replace('_', '-')}"


def merged_documents(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two settings documents section by section; where both set a value, `above` wins."""
    merged = dict(below)
    for name, value in above.items():
        before = merged.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = merged_documents(before, value) if both else value  # type: ignore[arg-type]
    return merged


def flatten_settings(document: Mapping[str, object]) -> dict[str, object]:
    """Flatten a settings document to dotted names, such as `optimizer.lr`."""
    flat: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": part for inner, part in flatten_settings(value).items()}
        else:
            flat[name] = value
    return flat
