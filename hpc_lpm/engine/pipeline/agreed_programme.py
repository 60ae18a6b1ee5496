"""A stage's programme that ends earlier once the ranks have agreed to stop."""

from collections.abc import Callable, Iterator

from hpc_lpm.engine.agreement import StepAgreement
from hpc_lpm.engine.pipeline.announcements import Announcements
from hpc_lpm.schedules.insertions import lagged_micro_batches
from hpc_lpm.schedules.instructions import Forward, Instruction, Programme, ReceiveActivation


class AgreedProgramme:
    """Yields the instructions of a segment, asking the agreement before each forward.

    When the segment is to end after fewer steps, the rest is replaced by that of the programme for
    those alone, which is the same up to there: a stop drains like the end of an epoch.

    Args:
        programme_of: returns this stage's programme for a number of micro-batches.
        micro_batches: of the whole segment.
        micro_batches_per_step: M.
    """

    def __init__(
        self,
        programme_of: Callable[[int], Programme],
        micro_batches: int,
        micro_batches_per_step: int,
        agreement: StepAgreement,
    ) -> None:
        self._programme_of = programme_of
        self._per_step = micro_batches_per_step
        self._agreement = agreement
        self._end = agreement.end
        self._programme = programme_of(micro_batches)
        self._lagged = lagged_micro_batches(self._programme)

    def is_lagged(self, micro_batch: int) -> bool:
        """Tell if there is an update between the two passes of a micro-batch."""
        return micro_batch in self._lagged

    def whole(self) -> Programme:
        """Return the programme as far as it is known."""
        return self._programme

    def run(self, announcements: Announcements) -> Iterator[Instruction]:
        """Yield what is to be executed, messages to come being announced as soon as is agreed.

        Raises:
            BoundaryError: if it is not heard in time whether training goes on.
        """
        position, begun = 0, -1
        announcements.announce(self._agreement.agreed)
        while position < len(self._programme):
            instruction = self._programme[position]
            if isinstance(instruction, ReceiveActivation | Forward):
                number = instruction.micro_batch
                if number > begun and number % self._per_step == 0:
                    self._agreement.begin_step(number // self._per_step)
                else:
                    self._agreement.listen()
                begun = number
                announcements.announce(self._agreement.agreed)
                if self._agreement.end < self._end:
                    self._stop_after(position)
            yield instruction
            position += 1

    def _stop_after(self, position: int) -> None:
        self._end = self._agreement.end
        shorter = self._programme_of(self._end * self._per_step)
        lagged = lagged_micro_batches(shorter)
        begun = self._programme[: position + 1]
        forwards = {item.micro_batch for item in begun if isinstance(item, Forward)}
        if shorter[: position + 1] != begun or lagged & forwards != self._lagged & forwards:
            raise RuntimeError(
                f"the programme for {self._end} steps differs from that for more before "
                f"instruction {position} ({self._programme[position]}), where training was to "
                "stop: this is a defect of the schedule"
            )
        self._programme, self._lagged = shorter, lagged
