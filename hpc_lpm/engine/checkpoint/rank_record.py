"""`rank-N.json`: what one rank saves beside its tensors."""

from typing import ClassVar

from pydantic import Field

from hpc_lpm.engine.recorder import SegmentRecord
from hpc_lpm.files import VersionedFile

StateValue = bool | int | float | None


class RankRecord(VersionedFile):
    """The figures of one rank so far, and those parts of its state that are no tensors.

    `optimizer_values` are by parameter and by their name in the optimizer's state;
    `dropout_passes` counts by layer the passes of each of its dropouts that draw by that count.
    """

    kind: ClassVar[str] = "record of a rank"

    segments: list[SegmentRecord]
    peak_in_flight: int
    lag_counts: dict[int, int]
    bytes_sent: int
    peak_memory_bytes: int
    optimizer_values: dict[str, dict[str, StateValue]] = Field(default={})
    dropout_passes: dict[int, list[int]] = Field(default={})
