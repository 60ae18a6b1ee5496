"""Insertions into a programme that was planned as computation alone.

A schedule yields forwards, backwards and updates. Each function here adds one concern, in this
order: averages over replicas, messages about tied weights, replays, and at last the communication
between neighbouring stages.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    Forward,
    Instruction,
    ReceiveActivation,
    ReceiveGradient,
    ReceiveTiedGradient,
    ReceiveTiedWeights,
    Reduce,
    Replay,
    SendActivation,
    SendGradient,
    SendTiedGradient,
    SendTiedWeights,
    Update,
)
from hpc_lpm.schedules.placement import Placement


def with_communication(
    programme: Iterable[Instruction], device: int, placement: Placement
) -> Iterator[Instruction]:
    """Yield `programme` with a receive before and a send after every pass that needs one.

    On a stage in the middle, F3 becomes RA3 F3 SA3 and B3 becomes RG3 B3 SG3. The gradient leaves
    before the update that may follow: the previous stage does not wait for it.
    """
    last = placement.stages - 1
    for instruction in programme:
        match instruction:
            case Forward(micro_batch, chunk):
                stage = placement.stage(device, chunk)
                if stage > 0:
                    yield ReceiveActivation(micro_batch, chunk)
                yield instruction
                if stage < last:
                    yield SendActivation(micro_batch, chunk)
            case Backward(micro_batch, chunk) | BackwardInput(micro_batch, chunk):
                stage = placement.stage(device, chunk)
                if stage < last:
                    yield ReceiveGradient(micro_batch, chunk)
                yield instruction
                if stage > 0:
                    yield SendGradient(micro_batch, chunk)
            case _:
                yield instruction


def lagged_micro_batches(programme: Iterable[Instruction]) -> frozenset[int]:
    """Return the micro-batches with an update between their forward and their backward.

    Tied weights that come from another device are an update like any other.
    """
    updates = 0
    updates_at_forward: dict[tuple[int, int], int] = {}
    lagged = set()
    for instruction in programme:
        match instruction:
            case Forward(micro_batch, chunk):
                updates_at_forward[micro_batch, chunk] = updates
            case Backward(micro_batch, chunk) | BackwardInput(micro_batch, chunk):
                if updates_at_forward.pop((micro_batch, chunk)) != updates:
                    lagged.add(micro_batch)
            case Update() | ReceiveTiedWeights():
                updates += 1
    return frozenset(lagged)


def with_replays(programme: Iterable[Instruction]) -> Iterator[Instruction]:
    """Yield `programme` with a replay before the backward of every lagged micro-batch.

    Communication is inserted after this: the replay then runs while the gradient that its backward
    waits for is still on its way.
    """
    planned = list(programme)
    lagged = lagged_micro_batches(planned)
    for instruction in planned:
        if isinstance(instruction, Backward) and instruction.micro_batch in lagged:
            yield Replay(instruction.micro_batch)
        yield instruction


def with_replicas(programme: Iterable[Instruction], *, flushes: bool) -> Iterator[Instruction]:
    """Yield `programme` with every update waiting for an average that begins where it stood.

    Where the schedule does not flush, the update moves behind the next forward, so that the average
    is taken while that forward computes. One stage of two replicas, two micro-batches per step, a
    the start of an average, u the update:

        F0  B0  F1  B1a F2u B2  F3  B3au

    The drain has no forward left and a flushing schedule none before the update: there the update
    waits at once. All replicas run the same programme, so where one pipeline cannot deadlock,
    several that wait for one another at updates cannot either.

    Replays are inserted after this, since moving an update makes another micro-batch lag.
    """
    planned = list(programme)
    last_forward = max(
        (index for index, item in enumerate(planned) if isinstance(item, Forward)), default=-1
    )
    due: Update | None = None
    for index, instruction in enumerate(planned):
        match instruction:
            case Update(step):
                yield Reduce(step)
                if flushes or index > last_forward:
                    yield instruction
                else:
                    due = instruction
            case Forward() if due is not None:
                yield instruction
                yield due
                due = None
            case _:
                yield instruction


@dataclass(frozen=True)
class TiedDevices:
    """Two devices that hold the same weights, which only the owner updates.

    `delay` is the number of micro-batches by which the owner's forwards are ahead of its updates.
    """

    owner: int
    copy: int
    delay: int


def with_tied_weights(
    programme: Iterable[Instruction],
    device: int,
    ties: Sequence[TiedDevices],
    micro_batches_per_step: int,
) -> Iterator[Instruction]:
    """Yield `programme` with the messages between owners and copies of tied weights.

    The copy's gradients of a step go to the owner, which adds them to its own before its update
    of that step: the copy has always run that far before. The updated weights reach the copy before
    the forward of the first micro-batch whose forward at the owner has seen the update, so that
    both use the same version for a micro-batch, and the message is there before that micro-batch
    is. At the end every copy is brought up to date. Averages over replicas include the gradients
    of the copies.
    """
    received = {tie: 0 for tie in ties if tie.copy == device}
    copies = [tie.copy for tie in ties if tie.owner == device]
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
