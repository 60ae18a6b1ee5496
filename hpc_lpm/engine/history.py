"""Where a training is: what it has behind it, and the step after which it drains next."""

from dataclasses import dataclass, field

from hpc_lpm.engine.records import SegmentRecord
from hpc_lpm.options import TrainSettings


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


def next_drain(settings: TrainSettings, step: int, steps_an_epoch: int, steps: int) -> int:
    """Return after which optimizer step training drains next.

    That is the end of the epoch or of the run, a drain that was asked for, or a checkpoint.

    Args:
        settings: with what was asked for.
        step: the steps done, fewer than `steps`.
        steps_an_epoch: those of a whole epoch.
        steps: those of the whole run.
    """
    due = [steps, (step // steps_an_epoch + 1) * steps_an_epoch]
    due += [asked for asked in settings.drain_at if asked > step]
    if every := settings.checkpoint_steps:
        due.append((step // every + 1) * every)
    return min(due)
