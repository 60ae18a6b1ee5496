"""What a run has behind it, alike on every rank."""

from dataclasses import dataclass, field

from hpc_lpm.engine.recorder import SegmentRecord


@dataclass
class History:
    """Where a training is and how it came there.

    `step` counts the optimizer steps done, `test_accuracy` has an entry an evaluation, `drains` the
    steps after which training drained other than for an evaluation, in order. `interruptions`
    counts how often it stopped, or was stopped, and went on from a checkpoint. `earlier` has the
    segments trained on another partition, each with the records of its ranks.
    """

    step: int = 0
    test_accuracy: list[float] = field(default_factory=list)
    drains: list[int] = field(default_factory=list)
    interruptions: int = 0
    earlier: list[list[SegmentRecord]] = field(default_factory=list)
