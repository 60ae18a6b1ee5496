"""The options that strategies on merged stages have for themselves."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hpc_lpm.durations import Duration, PartOfRun
from hpc_lpm.errors import closest
from hpc_lpm.options import (
    DEFAULT_WEIGHT_POLICY,
    CommandOption,
    PlannedPolicyName,
    StrategyOptions,
    TransportName,
    WeightPolicyName,
)
from hpc_lpm.prediction_rules import PredictionRule
from hpc_lpm.recipes import AUTO, NO_RECIPE, RECIPES, options_of_recipes

PIPELINE = "Pipeline stages"
LAG = "Lagging weights"

BoundaryShapes = Literal["auto", "sent"]


@dataclass(frozen=True)
class PassRules:
    """What a strategy adds to the order of its schedule.

    Attributes:
        lead: micro-batches that forwards run ahead, per later stage.
        weights: the policy for lagged micro-batches.
        gradient_shrink: the factor of the gradient that a stage hands to the stage before it.
    """

    lead: int = 1
    weights: PlannedPolicyName = DEFAULT_WEIGHT_POLICY
    gradient_shrink: float = 1.0


class PipelineOptions(StrategyOptions):
    """What carries the messages of stages on our engine, and which processes play them."""

    transport: Annotated[
        TransportName,
        Field(description="what carries messages: auto, mpi or torch (gloo, NCCL)"),
        CommandOption(PIPELINE, metavar="NAME", computes=False, settled=True),
    ] = "auto"
    progress_thread: Annotated[
        bool | None,
        Field(
            description="drive MPI while stages compute; by default where ranks are on several "
            "hosts"
        ),
        CommandOption(PIPELINE, computes=False, settled=True),
    ] = None
    boundary_shapes: Annotated[
        BoundaryShapes,
        Field(
            description="auto, or sent: every message between stages says what it consists of, as "
            "where a rehearsal finds that shapes vary"
        ),
        CommandOption(PIPELINE, metavar="NAME", computes=False),
    ] = "auto"

    in_one_process: Annotated[
        bool,
        Field(
            description="one process plays all ranks in turn, without mpirun, and ends in the same "
            "bits"
        ),
        CommandOption(PIPELINE, computes=False),
    ] = False
    ranks: Annotated[
        int | None,
        Field(
            gt=0,
            description="ranks that one process plays; by default one for each stage of the plan",
        ),
        CommandOption(PIPELINE, metavar="N", computes=False),
    ] = None

    @model_validator(mode="after")
    def _plays_ranks_without_messages(self) -> Self:
        if self.ranks is not None and not self.in_one_process:
            raise ValueError(
                f"ranks is {self.ranks} without in one process: mpirun -n {self.ranks} starts that "
                "many"
            )
        if self.in_one_process and (self.transport != "auto" or self.progress_thread):
            raise ValueError("in one process there are no messages for a transport or its thread")
        return self

    @model_validator(mode="after")
    def _torch_makes_progress_itself(self) -> Self:
        if self.progress_thread and self.transport == "torch":
            raise ValueError("progress thread is for transport mpi, torch makes progress itself")
        return self


class ScheduledOptions(PipelineOptions):
    """How far stages run ahead of each other, and what is done about weights that lag.

    Under a schedule that knows no `lead` or no `weights`, only their defaults are accepted.
    """

    lead: Annotated[
        int,
        Field(gt=0, description="micro-batches that forwards run ahead, per later stage"),
        CommandOption(PIPELINE, metavar="N"),
    ] = 1
    weights: Annotated[
        WeightPolicyName,
        Field(description="live, replay or stash: the policy for lagged micro-batches"),
        CommandOption(PIPELINE, metavar="NAME"),
    ] = DEFAULT_WEIGHT_POLICY
    recipe: Annotated[
        str,
        Field(description="corrections of lagging weights: none, auto, or the name of a recipe"),
        CommandOption(LAG, metavar="NAME", computes=False),
    ] = NO_RECIPE

    @property
    def left_to_the_run(self) -> frozenset[str]:
        """The options that were not given, and that the recipe may set when the run starts."""
        if self.recipe == NO_RECIPE:
            return frozenset()
        own = options_of_recipes().intersection(type(self).model_fields)
        return own - self.model_fields_set

    @model_validator(mode="after")
    def _has_a_known_recipe(self) -> Self:
        accepted = [AUTO, NO_RECIPE, *RECIPES]
        if self.recipe not in accepted:
            raise ValueError(
                f"recipe {self.recipe!r} is unknown{closest(self.recipe, accepted)}: accepted are "
                f"{', '.join(accepted)}"
            )
        return self


class ChunkedOptions(ScheduledOptions):
    """How many stages each device holds, where the schedule lets the user choose."""

    chunks: Annotated[
        int,
        Field(gt=0, description="parts of the model on each device, which the plan must have"),
        CommandOption(PIPELINE, metavar="N"),
    ] = 2


@dataclass(frozen=True)
class FlushedSteps:
    """The optimizer steps of a run that flush: the first `head`, and those from `tail` on."""

    head: int
    tail: int
    steps: int

    def __contains__(self, step: int) -> bool:
        """Tell if a step, counted from 0, flushes."""
        return step < self.head or step >= self.tail

    @property
    def switches(self) -> tuple[int, ...]:
        """The numbers of steps done when the run begins or ends to flush at every step."""
        if self.head >= self.tail:
            return ()
        return tuple(step for step in (self.head, self.tail) if 0 < step < self.steps)


class LaggingOptions(ScheduledOptions):
    """The options that make up for the accuracy which lagging weights cost."""

    prediction: Annotated[
        bool,
        Field(description="run lagged forwards at predicted weights"),
        CommandOption(LAG),
    ] = False
    prediction_rule: Annotated[
        PredictionRule | None,
        Field(
            description="last-update, second-order, balanced or spectrain; by default the usual "
            "one for the optimizer"
        ),
        CommandOption(LAG, metavar="NAME"),
    ] = None
    synchronous_head: Annotated[
        PartOfRun,
        Field(description="first part of the run in which every step flushes: 200steps, 10%, 1"),
        CommandOption(LAG, metavar="PART"),
    ] = 0
    synchronous_tail: Annotated[
        PartOfRun,
        Field(description="last part of the run in which every step flushes: 200steps, 10%, 1"),
        CommandOption(LAG, metavar="PART"),
    ] = 0
    lr_discount: Annotated[
        bool,
        Field(description="divide a stage's learning rate by its mean lag"),
        CommandOption(LAG),
    ] = False

    @model_validator(mode="after")
    def _rule_predicts(self) -> Self:
        by_recipe = self.recipe != NO_RECIPE and "prediction" not in self.model_fields_set
        if self.prediction_rule is not None and not self.prediction and not by_recipe:
            raise ValueError(
                f"prediction rule is {self.prediction_rule} without prediction, which it is a rule "
                "for: switch prediction on, or leave the rule out"
            )
        return self

    def flushed_steps(self, steps: int, steps_an_epoch: int) -> FlushedSteps:
        """Return the optimizer steps of a run that flush whatever the schedule is."""
        head, tail = Duration.parse(self.synchronous_head), Duration.parse(self.synchronous_tail)
        return FlushedSteps(
            head.first_steps(steps, steps_an_epoch),
            steps - tail.last_steps(steps, steps_an_epoch),
            steps,
        )

    def drains(self, steps: int, steps_an_epoch: int) -> tuple[int, ...]:
        """Return the steps after which the run begins or ends to flush at every step."""
        return self.flushed_steps(steps, steps_an_epoch).switches

    @classmethod
    def of(cls, options: StrategyOptions) -> "LaggingOptions":
        """Return the options of any scheduled strategy, without corrections where nothing lags."""
        if isinstance(options, cls):
            return options
        return cls(**{name: value for name, value in options if name in cls.model_fields})
