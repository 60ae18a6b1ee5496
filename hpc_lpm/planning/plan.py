"""The plan file: which layers each stage holds, and the predicted cost."""

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpc_lpm.files import VersionedFile


class StagePlan(BaseModel):
    """Layers `[start, stop)` of one stage with their predicted cost.

    Attributes:
        compute_seconds: T_k of the planner's objective.
        send_bytes: what one micro-batch sends over the boundary after this stage, 0 for the last.
        memory_bytes: Q_k of the planner's objective.
        parameter_bytes: the parameters of its layers; None in files of earlier releases.
        activation_bytes: what its layers keep for the backward of one micro-batch; None likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=0)
    stop: int = Field(gt=0)
    compute_seconds: float = Field(ge=0)
    send_bytes: int = Field(ge=0)
    memory_bytes: int = Field(ge=0)
    parameter_bytes: int | None = Field(default=None, ge=0)
    activation_bytes: int | None = Field(default=None, ge=0)


class Plan(VersionedFile):
    """Merged stages covering every layer once, in order.

    `options` are the `PlanOptions` that the plan was made for, its schedule among them (files of
    earlier releases name none; their plans are for the default one). `micro_batch` is how many
    samples the profiled micro-batches had, None in files of earlier releases.
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
        return self

    @property
    def cuts(self) -> tuple[int, ...]:
        """The K+1 cut positions c_0 = 0 < c_1 < ... < c_K = L."""
        return (0, *(stage.stop for stage in self.stages))
