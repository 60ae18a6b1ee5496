"""The batches that a rank is executing: the stages that it holds ask for their micro-batches."""

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.schedules.stepwise import StepwiseProgramme


class BatchesUnderWay:
    """The batches that are trained or evaluated at the moment, and how far the rank has come.

    Programmes number micro-batches from the last drain on.

    Args:
        per_step: the micro-batches of an optimizer step.

    Attributes:
        training: whether the rank trains or evaluates.
        programme: the programme since the pipeline was empty, None in an evaluation.
        updates: how many updates the rank has made.
        in_flight: how many micro-batches are between their passes, of all stages together.
    """

    def __init__(self, per_step: int) -> None:
        self.per_step = per_step
        self.training = False
        self.programme: StepwiseProgramme | None = None
        self.updates = 0
        self.in_flight = 0
        self._batches: list[MicroBatches] = []
        self._first_batch = 0

    def __len__(self) -> int:
        """Return how many batches have been taken, those that are done included."""
        return self._first_batch + len(self._batches)

    def take(self, batch: MicroBatches) -> None:
        """Begin with another batch."""
        self._batches.append(batch)

    def end_step(self) -> None:
        """Forget the first batch, of which nothing is in flight any more."""
        self.updates += 1
        del self._batches[0]
        self._first_batch += 1

    def clear(self) -> None:
        """Forget everything: the pipeline is empty."""
        self.programme = None
        self._batches.clear()
        self._first_batch = 0

    def located(self, micro_batch: int) -> tuple[MicroBatches, int]:
        """Return the batch that a micro-batch belongs to, and its place there."""
        if not self.training:
            return self._batches[0], micro_batch
        step, place = divmod(micro_batch, self.per_step)
        return self._batches[step - self._first_batch], place

    def samples(self, micro_batch: int) -> int:
        """Return how many samples a micro-batch has."""
        batch, place = self.located(micro_batch)
        return batch.size(place)

    def number(self, micro_batch: int) -> int:
        """Return a micro-batch's number within the whole training, or within an evaluation."""
        batch, place = self.located(micro_batch)
        return batch.number(place)

    def ends_step(self, micro_batch: int) -> bool:
        """Tell if a micro-batch is the last one of its step."""
        batch, place = self.located(micro_batch)
        return place == len(batch) - 1

    def is_lagged(self, micro_batch: int) -> bool:
        """Tell if weights are updated between the two passes of a micro-batch."""
        return self.programme is not None and self.programme.is_lagged(micro_batch)
