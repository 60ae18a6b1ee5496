"""Insertion of what keeps tied weights on two stages one, without a stage ever waiting for it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hpc_lpm.schedules.instructions import (
    Forward,
    Instruction,
    ReceiveTiedGradient,
    ReceiveTiedWeights,
    Reduce,
    SendTiedGradient,
    SendTiedWeights,
    Update,
)


@dataclass(frozen=True)
class TiedStages:
    """Two stages that hold the same weights; only the owner updates them.

    `delay` is by how many micro-batches the owner's forwards are ahead of its updates.
    """

    owner: int
    copy: int
    delay: int


def with_tied_weights(
    programme: Iterable[Instruction],
    stage: int,
    ties: Sequence[TiedStages],
    micro_batches_per_step: int,
) -> Iterator[Instruction]:
    """Yield `programme` with the messages between owners and copies of tied weights.

    The copy's gradients of a step go to the owner, which adds them to its own before its update
    of that step: the copy has always run that far before. The updated weights reach the copy before
    the forward of the first micro-batch whose forward at the owner has seen the update, so that
    both use the same version for a micro-batch, and the message is there before that micro-batch
    is. At the end every copy is brought up to date. Averages over replicas are taken of gradients
    to which those of copies have been added.
    """
    received = {tie: 0 for tie in ties if tie.copy == stage}
    copies = [tie.copy for tie in ties if tie.owner == stage]
    gathered = updates = 0
    for instruction in programme:
        match instruction:
            case Forward(micro_batch):
                for tie, first in received.items():
                    due = max(first, (micro_batch - tie.delay) // micro_batches_per_step)
                    yield from (ReceiveTiedWeights(step, tie.owner) for step in range(first, due))
                    received[tie] = due
                yield instruction
            case Reduce(step) | Update(step):
                if step == gathered:
                    yield from (SendTiedGradient(step, tie.owner) for tie in received)
                    yield from (ReceiveTiedGradient(step, copy) for copy in copies)
                    gathered += 1
                yield instruction
                if isinstance(instruction, Update):
                    yield from (SendTiedWeights(step, copy) for copy in copies)
                    updates += 1
            case _:
                yield instruction
    for tie, first in received.items():
        yield from (ReceiveTiedWeights(step, tie.owner) for step in range(first, updates))
