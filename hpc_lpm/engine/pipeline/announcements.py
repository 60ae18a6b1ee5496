"""Announcing a programme's messages to the channels, an optimizer step at a time."""

from collections import deque
from collections.abc import Iterable

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.pipeline.boundary import StageBoundaries, TensorSpec
from hpc_lpm.engine.pipeline.tied_exchange import TiedExchange
from hpc_lpm.engine.pipeline.transport.channel import Channel
from hpc_lpm.schedules.instructions import (
    Instruction,
    ReceiveActivation,
    ReceiveGradient,
    ReceiveTiedGradient,
    ReceiveTiedWeights,
)

Message = tuple[TensorSpec, ...]


class Announcements:
    """The messages that a programme receives, told to each channel in the order of the programme.

    Receives are posted for what has been announced, and a message that was announced must come.
    `micro_batches_per_step` tells which optimizer step a micro-batch belongs to.
    """

    def __init__(
        self,
        programme: Iterable[Instruction],
        batches: MicroBatches,
        boundaries: StageBoundaries,
        from_previous: Channel,
        from_next: Channel,
        tied: TiedExchange,
        micro_batches_per_step: int,
    ) -> None:
        self._waiting: dict[Channel, deque[tuple[int, Message]]] = {}
        for instruction in programme:
            match instruction:
                case ReceiveActivation(n):
                    specs = boundaries.incoming[batches.size(n)].tensors
                    self._add(from_previous, n // micro_batches_per_step, specs)
                case ReceiveGradient(n):
                    specs = boundaries.outgoing[batches.size(n)].gradients()
                    self._add(from_next, n // micro_batches_per_step, specs)
                case ReceiveTiedGradient() | ReceiveTiedWeights():
                    channel, specs = tied.awaited(instruction)
                    self._add(channel, instruction.step, specs)
                case _:
                    pass

    def _add(self, channel: Channel, step: int, message: Message) -> None:
        self._waiting.setdefault(channel, deque()).append((step, message))

    def announce(self, end_step: int) -> None:
        """Announce all messages about optimizer steps before `end_step`."""
        for channel, waiting in self._waiting.items():
            due = []
            while waiting and waiting[0][0] < end_step:
                due.append(waiting.popleft()[1])
            if due:
                channel.expect(due)
