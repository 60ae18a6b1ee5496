"""How far a training is, and after which step it drains next."""

from dataclasses import dataclass, field

from hpc_lpm.engine.evaluation import TEST, Evaluation
from hpc_lpm.engine.records import SegmentRecord
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.options import ACCURACY


@dataclass(frozen=True)
class Rewind:
    """A return to a checkpoint: the steps from that of the checkpoint to this one were left out."""

    checkpoint_step: int
    step: int


@dataclass
class History:
    """How far a training is and how it got there; every rank has the same.

    `step` counts the optimizer steps done, `micro_batches` those of a script over all replicas,
    `epochs_evaluated` the epochs after which the model has
    been evaluated; `evaluations` has an entry for each part of the data in each evaluation.
    `drains` are the steps inside epochs after which training drained, in order. `interruptions`
    counts how often the run stopped and resumed from a checkpoint. `earlier` holds the segments
    that another partition trained, each with the records of its ranks. `resume_changes` say what a
    run of this length that was not resumed would have computed otherwise. `rewinds` are its returns
    to checkpoints.
    """

    step: int = 0
    micro_batches: int = 0
    epochs_evaluated: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    drains: list[int] = field(default_factory=list)
    interruptions: int = 0
    earlier: list[list[SegmentRecord]] = field(default_factory=list)
    resume_changes: list[str] = field(default_factory=list)
    rewinds: list[Rewind] = field(default_factory=list)

    @property
    def evaluated_step(self) -> int:
        """The step after which the model was evaluated last, 0 before the first evaluation."""
        return self.evaluations[-1].step if self.evaluations else 0

    @property
    def test_accuracy(self) -> list[float]:
        """The accuracy on the test part after each epoch, empty where there is no accuracy."""
        after_epochs = (each for each in self.evaluations if each.after_epoch)
        values = [each.metrics.get(ACCURACY) for each in after_epochs if each.part == TEST]
        return [value for value in values if value is not None]


def next_drain(settings: TrainSettings, step: int, steps_an_epoch: int, steps: int) -> int:
    """Return the optimizer step after which training drains next.

    It drains at the end of an epoch and of the run, for checkpoints, for evaluations inside an
    epoch, where the user asks for it and where the strategy does.

    Args:
        settings: name the steps that the user asks for, and those between checkpoints and between
            evaluations; the strategy's own options name the strategy's.
        step: the number of steps done, less than `steps`.
        steps_an_epoch: the number of steps of a whole epoch.
        steps: the number of steps of the run.
    """
    due = [steps, (step // steps_an_epoch + 1) * steps_an_epoch]
    own = settings.own.drains(steps, steps_an_epoch)
    due += [asked for asked in (*settings.drain_at, *own) if asked > step]
    for every in (settings.checkpoint_steps, settings.evaluate_every):
        if every:
            due.append((step // every + 1) * every)
    return min(due)
