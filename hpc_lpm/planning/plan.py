"""The plan file: which layers each stage holds, and the predicted cost."""

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpc_lpm.errors import InputError
from hpc_lpm.planning.worth.expected import StepWorth
from hpc_lpm.profile_file import LinkProfile
from hpc_lpm.sealed_file import SealedFile


class StagePlan(BaseModel):
    """Layers `[start, stop)` of one stage with their predicted cost.

    Attributes:
        compute_seconds: T_k of the planner's objective.
        send_bytes: what one micro-batch sends over the boundary after this stage, 0 for the last.
        memory_bytes: Q_k of the planner's objective.
        parameter_bytes: the parameters of its layers; None in files of earlier releases.
        activation_bytes: what its layers keep for the backward of one micro-batch; None likewise.
        matrix_parameter_bytes: those of its parameters that are matrices; None where the profile
            does not tell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=0)
    stop: int = Field(gt=0)
    compute_seconds: float = Field(ge=0)
    send_bytes: int = Field(ge=0)
    memory_bytes: int = Field(ge=0)
    parameter_bytes: int | None = Field(default=None, ge=0)
    activation_bytes: int | None = Field(default=None, ge=0)
    matrix_parameter_bytes: int | None = Field(default=None, ge=0)


class PlannedLayer(BaseModel):
    """A layer that a plan was made for; `fingerprint` as in the profile, None if it has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    fingerprint: str | None = None


class Plan(SealedFile):
    """Merged stages covering every layer once, in order.

    Attributes:
        planner: The planner that chose the cuts.
        model: The profiled model's name.
        stages: Every stage in order: its layers `[start, stop)`, and its predicted
            `compute_seconds`, `send_bytes` and `memory_bytes`.
        period_seconds: Predicted seconds a micro-batch in steady state.
        boundary_bytes: What one micro-batch sends over all boundaries, one way.
        profile_sha256: The hash of the profile's file.
        micro_batch: Samples of the profiled micro-batch; like the rest, None or empty in files of
            earlier releases.
        options: The options that the plan was made for, its schedule among them (files of earlier
            releases name none; their plans are for the default one).
        link: The profile's link, or what was given instead of it.
        layers: Name and fingerprint of the profiled model's layers, in order.
        inputs: What the profile tells of the model's inputs.
        lag_mean: Updates by which weights lag, on average over micro-batches and stages.
        lag_largest: The most updates by which a micro-batch's weights lag at any stage.
        step_worth: What a step is expected to be worth of a synchronous one: `value`, `low`, `high`
            and the `reason`; None in plans that were not asked for by a user.
        content_sha256: The hash of the rest of the file, by which a change by hand is seen.
    """

    kind: ClassVar[str] = "plan"

    planner: str
    model: str
    stages: tuple[StagePlan, ...] = Field(min_length=1)
    period_seconds: float = Field(ge=0)
    boundary_bytes: int = Field(ge=0)
    profile_sha256: str
    micro_batch: int | None = Field(default=None, gt=0)
    options: dict[str, object] = Field(default_factory=dict)
    link: LinkProfile | None = None
    layers: tuple[PlannedLayer, ...] = ()
    inputs: dict[str, object] | None = None
    lag_mean: float | None = Field(default=None, ge=0)
    lag_largest: int | None = Field(default=None, ge=0)
    step_worth: StepWorth | None = None

    def changed_after(self, where: str) -> InputError:
        """Return the error to raise of a plan that was changed by hand."""
        return InputError(
            f"plan {where} was changed after it had been made, so its prices do not follow "
            "from its profile: make it again, and give cuts of your own as `hpc-lpm plan "
            f"PROFILE --cuts {','.join(map(str, self.cuts[1:-1])) or 'C,C,...'}`."
        )

    @model_validator(mode="after")
    def _stages_are_contiguous(self) -> Self:
        expected = 0
        for number, stage in enumerate(self.stages):
            if stage.start != expected or stage.stop <= stage.start:
                raise ValueError(
                    f"stage {number} holds layers [{stage.start}, {stage.stop}) where a stage "
                    f"that starts at layer {expected} and holds at least one layer is expected"
                )
            expected = stage.stop
        if self.chunks < 1 or len(self.stages) % self.chunks:
            raise ValueError(
                f"options have {self.chunks} chunks on each device, accepted is a number that "
                f"divides the {len(self.stages)} stages"
            )
        if self.layers and len(self.layers) != expected:
            raise ValueError(f"{len(self.layers)} layers are named where stages hold {expected}")
        return self

    @property
    def chunks(self) -> int:
        """How many of the stages each device holds."""
        chunks = self.options.get("chunks")
        return chunks if isinstance(chunks, int) else 1

    @property
    def devices(self) -> int:
        """For how many devices the plan is, each with `chunks` stages."""
        return len(self.stages) // self.chunks

    @property
    def cuts(self) -> tuple[int, ...]:
        """The K+1 cut positions c_0 = 0 < c_1 < ... < c_K = L."""
        return (0, *(stage.stop for stage in self.stages))
