"""A stage's programme that ends earlier once the ranks have agreed to stop.

Messages are announced to the channels an optimizer step at a time, as soon as it is agreed that the
step will be trained.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.pipeline.boundary import StageBoundaries, TensorSpec
from hpc_lpm.engine.pipeline.tied_exchange import TiedExchange
from hpc_lpm.engine.pipeline.transport.channel import Channel, NeighbourChannels
from hpc_lpm.engine.stop_agreement import StopAgreement
from hpc_lpm.schedules.insertions import lagged_micro_batches
from hpc_lpm.schedules.instructions import (
    Forward,
    Instruction,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    ReceiveTiedGradient,
    ReceiveTiedWeights,
)

Message = tuple[TensorSpec, ...]


class Announcements:
    """Announces the messages that a programme receives to their channels, in its order.

    Channels post receives for what has been announced, so a message that was announced must come.
    `micro_batches_per_step` determines which optimizer step a micro-batch belongs to.
    """

    def __init__(
        self,
        programme: Iterable[Instruction],
        batches: MicroBatches,
        boundaries: StageBoundaries,
        channels: NeighbourChannels,
        tied: TiedExchange,
        micro_batches_per_step: int,
        *,
        training: bool,
    ) -> None:
        self._waiting: dict[Channel, deque[tuple[int, Message]]] = {}
        for instruction in programme:
            match instruction:
                case ReceiveActivation(n):
                    spec = boundaries.incoming.agreed(training=training, samples=batches.size(n))
                    tensors = spec.messages() if spec else ()
                    self._add(channels.from_previous, n // micro_batches_per_step, tensors)
                case ReceiveGradient(n):
                    spec = boundaries.outgoing.agreed(training=training, samples=batches.size(n))
                    gradients = spec.gradient_messages() if spec else ()
                    self._add(channels.from_next, n // micro_batches_per_step, gradients)
                case ReceiveTiedGradient() | ReceiveTiedWeights():
                    channel, specs = tied.awaited(instruction)
                    self._add(channel, instruction.step, specs)
                case _:
                    pass

    def _add(self, channel: Channel, step: int, message: Message) -> None:
        # What only the messages themselves tell cannot be announced; of nothing, nothing is sent.
        if message:
            self._waiting.setdefault(channel, deque()).append((step, message))

    def announce(self, end_step: int) -> None:
        """Announce all messages of the optimizer steps before `end_step`."""
        for channel, waiting in self._waiting.items():
            due = []
            while waiting and waiting[0][0] < end_step:
                due.append(waiting.popleft()[1])
            if due:
                channel.expect(due)


class AgreedProgramme:
    """Yields the instructions of a segment, and asks before each forward pass whether to stop.

    Once the segment is to end after fewer steps, the rest of the programme is replaced by that of
    the programme for these steps alone, which is the same up to there: a stop drains the pipeline
    like the end of an epoch.

    Args:
        programme_of: returns this stage's programme for a number of micro-batches.
        micro_batches: the number of micro-batches of the whole segment.
        micro_batches_per_step: the number of micro-batches of an optimizer step.
        agreement: the agreement of the ranks on where to stop.
    """

    def __init__(
        self,
        programme_of: Callable[[int], Programme],
        micro_batches: int,
        micro_batches_per_step: int,
        agreement: StopAgreement,
    ) -> None:
        self._programme_of = programme_of
        self._per_step = micro_batches_per_step
        self._agreement = agreement
        self._end = agreement.end
        self._programme = programme_of(micro_batches)
        self._lagged = lagged_micro_batches(self._programme)

    def is_lagged(self, micro_batch: int) -> bool:
        """Return whether an update comes between the two passes of a micro-batch."""
        return micro_batch in self._lagged

    def whole(self) -> Programme:
        """Return the whole programme, as it is if nobody stops."""
        return self._programme

    def run(self, announcements: Announcements) -> Iterator[Instruction]:
        """Yield the instructions, and announce messages as soon as it is agreed that they come.

        Raises:
            BoundaryError: if this rank does not hear in time whether training goes on.
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
