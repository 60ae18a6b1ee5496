"""The result of one training run: `result.json`."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from hpc_lpm.engine.early_stopping import EarlyStop
from hpc_lpm.engine.evaluation import Evaluation
from hpc_lpm.engine.history import Rewind
from hpc_lpm.engine.records import Straggle
from hpc_lpm.sealed_file import SealedFile

RESULT = "result.json"


class ParameterGroup(BaseModel):
    """Parameters that are updated otherwise than others, by their names in the state_dict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(description="the rate that the schedule multiplies, before a discount")
    weight_decay: float
    rule: str | None = Field(
        default=None,
        description="muon or adamw, where an optimizer updates matrices and others differently",
    )
    parameters: list[str]


class RunResult(SealedFile):
    """The outcome of one run.

    `idle_share`, `peak_memory_bytes`, `bytes_sent`, `peak_in_flight`, `lag_counts`,
    `skipped_updates`, `seconds_by_kind` and the seconds of saving have one entry for each rank, in
    rank order.

    `step_seconds` has one entry for each optimizer step, measured on the slowest rank without
    evaluations; `samples_per_second` covers all steps but the first `settings.discard_steps`.
    `idle_share` is the share of the training time in which a rank does not compute. `train_loss`
    has one entry for each step, `test_accuracy` one for each epoch where there is an accuracy.
    `weights_sha256` covers all parameters and buffers in layer order, whatever the partition. The
    result of a run that resumed from a checkpoint covers the whole run; if the partition changed,
    the lists by rank cover the time since.
    """

    kind: ClassVar[str] = "result"

    strategy: str
    model: str
    dataset: str
    planner: str | None
    seed: int
    ranks: int
    samples_per_second: float
    step_seconds: list[float]
    training_seconds: float
    idle_share: list[float]
    peak_memory_bytes: list[int]
    bytes_sent: list[int]
    train_loss: list[float | None]
    test_accuracy: list[float]
    test_predictions: int | None = Field(
        default=None, description="predictions behind each `test_accuracy`; unknown in old results"
    )
    evaluations: list[Evaluation] = Field(
        default=[], description="loss and metrics of each evaluation of each part of the data"
    )
    lower_is_better: list[str] = Field(
        default=[], description="the metrics of which a lower value is the better one"
    )
    best_evaluation: Evaluation | None = Field(
        default=None,
        description="the evaluation with the best `settings.patience_metric`, the loss by default",
    )
    stopped_early: EarlyStop | None = Field(
        default=None, description="where and why the run stopped before its planned end"
    )
    evaluation_seconds: float = Field(
        default=0.0, description="seconds of all evaluations, which are no part of the training"
    )
    drain_seconds: float = Field(
        default=0.0,
        description="seconds of the training for which, at drains, the first rank that had "
        "finished waited for the last",
    )
    checkpoints_saved: int = Field(
        default=0, description="checkpoints that this folder's runs saved, those that went included"
    )
    saving_copy_seconds: list[float] = Field(
        default=[],
        description="seconds for which training stood still, beside drains, while what checkpoints "
        "hold was copied",
    )
    saving_wait_seconds: list[float] = Field(
        default=[],
        description="seconds for which it stood still until the files of a checkpoint were "
        "written, before the next one or the end",
    )
    saving_behind_seconds: list[float] = Field(
        default=[], description="seconds in which files of checkpoints were written behind training"
    )
    weights_sha256: str
    peak_in_flight: list[int] = Field(
        default=[], description="largest number of micro-batches between forward and backward"
    )
    lag_counts: list[dict[int, int]] = Field(
        default=[], description="micro-batches by updates between their forward and backward"
    )
    skipped_updates: list[int] = Field(
        default=[], description="updates left out because gradients were not finite"
    )
    replicas: int = Field(default=1, description="copies of every stage; 1 without a plan")
    seconds_by_kind: list[dict[str, float]] = Field(
        default=[], description="seconds of training by what a rank did, waiting as `receive`"
    )
    drains: list[int] = Field(
        default=[],
        description="optimizer steps inside epochs after which training drained",
    )
    interruptions: int = Field(
        default=0, description="how often the run stopped and went on from a checkpoint"
    )
    stragglers: list[Straggle] = Field(
        default=[], description="when which rank was slow and held up the others, by what factor"
    )
    rewinds: list[Rewind] = Field(
        default=[],
        description="returns to a checkpoint from a loss or weights that were not finite, each "
        "with the steps that it left out, both included",
    )
    parameter_groups: list[ParameterGroup] = Field(
        default=[], description="where not all parameters have the same rate and weight decay"
    )
    resume_changes: list[str] = Field(
        default=[],
        description="what a run of this length that did not go on from a shorter one would have "
        "computed otherwise",
    )
    recipe: str | None = Field(
        default=None, description="which corrections of lagging weights a recipe chose, and why"
    )
    cuts: list[int] = Field(description="the K+1 cut positions; [0, L] without a partition")
    settings: dict[str, object]
    environment: dict[str, object]

    @property
    def discarded_steps(self) -> int:
        """How many of its first steps `samples_per_second` leaves out."""
        discard = self.settings.get("discard_steps", 0)
        return discard if isinstance(discard, int) and discard < len(self.step_seconds) else 0
