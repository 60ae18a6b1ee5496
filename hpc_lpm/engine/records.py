"""What every rank records of a run: checkpoints save it, and results are computed from it."""

from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel, Field

from hpc_lpm.files import VersionedFile

INPUT_GRADIENT, WEIGHT_GRADIENT = "input gradient", "weight gradient"
"""Kinds of intervals in which a rank runs one half of a backward pass."""

COMPUTING = frozenset(
    {"load", "forward", "replay", "backward", INPUT_GRADIENT, WEIGHT_GRADIENT, "update"}
)
"""Kinds of intervals in which a rank computes; the rest of its time it is idle."""

StateValue = bool | int | float | None
GroupValue = StateValue | str | list[StateValue]


@dataclass(frozen=True)
class TracedInstruction:
    """One instruction of the trace; `start_seconds` counts from the start of its segment."""

    kind: str
    micro_batch: int
    start_seconds: float
    duration_seconds: float


@dataclass(frozen=True)
class StepNorms:
    """The 2-norms of one rank's gradients and weights before the update of a step."""

    step: int
    gradient: float
    weight: float


@dataclass
class SegmentRecord:
    """The steps between two drains on one rank; times count from the common start of all ranks.

    `step_losses` are means over the `step_samples` whose losses this rank computed, or 0 if it
    computed none, and None where the mean is not finite.
    """

    step_end_seconds: list[float] = field(default_factory=list)
    step_losses: list[float | None] = field(default_factory=list)
    step_samples: list[int] = field(default_factory=list)
    intervals: list[TracedInstruction] = field(default_factory=list)
    seconds_by_kind: dict[str, float] = field(default_factory=dict)
    end_seconds: float = 0.0

    @property
    def busy_seconds(self) -> float:
        """Seconds in which the rank computed."""
        return sum(self.seconds_by_kind.get(kind, 0.0) for kind in COMPUTING)


class Straggle(BaseModel):
    """A time in which one rank was slow, and held up the others.

    Attributes:
        rank: its number.
        host: its node.
        factor: how many times as long its passes took, on average.
        beside: what they are compared with, in words that follow "as long as".
        from_step: the optimizer step from which it was slow.
        to_step: the first step in which it no longer was; None if that has not come.
        seconds: of training in which it was slow.
    """

    rank: int
    host: str
    factor: float
    beside: str
    from_step: int
    to_step: int | None = None
    seconds: float

    def beginning(self) -> str:
        """Say that the rank has become slow, in a sentence without a full stop."""
        return (
            f"rank {self.rank} on {self.host} is slow: since step {self.from_step} its passes take "
            f"{self.factor:.1f} times as long as {self.beside}"
        )

    def end(self) -> str:
        """Say that it no longer is."""
        return (
            f"rank {self.rank} on {self.host} is no longer slow since step {self.to_step}: for "
            f"{self.seconds:.0f} s its passes took {self.factor:.1f} times as long as {self.beside}"
        )


@dataclass
class SavingSeconds:
    """How long saving `checkpoints` took one rank.

    Training stands still for `copy`, in which a copy is taken and the ranks agree, and for `wait`,
    in which this rank waits for files: for those of an earlier checkpoint before the next one or
    the end, or for its own where it has no memory for a copy. Files are written behind training for
    `behind`.
    """

    checkpoints: int = 0
    copy: float = 0.0
    wait: float = 0.0
    behind: float = 0.0

    def __add__(self, other: "SavingSeconds") -> "SavingSeconds":
        return SavingSeconds(
            self.checkpoints + other.checkpoints,
            self.copy + other.copy,
            self.wait + other.wait,
            self.behind + other.behind,
        )


class RankRecord(VersionedFile):
    """`rank-N.json`: what one rank has measured, and the parts of its state that are not tensors.

    `optimizer_values` are keyed by parameter and by their name in the optimizer's state;
    `optimizer` is its class, "" in files of earlier releases; `optimizer_groups` are the settings
    of its groups, such as the rate, that JSON can hold.
    """

    kind: ClassVar[str] = "record of a rank"

    segments: list[SegmentRecord]
    peak_in_flight: int
    lag_counts: dict[int, int]
    bytes_sent: int
    peak_memory_bytes: int
    skipped_updates: int = 0
    straggles: list[Straggle] = Field(default=[])
    saving: SavingSeconds = Field(default_factory=SavingSeconds)
    optimizer_values: dict[str, dict[str, StateValue]] = Field(default={})
    optimizer: str = ""
    optimizer_groups: list[dict[str, GroupValue]] = Field(default=[])
