"""Which micro-batches lag, and insertion of their replays into a programme."""

from collections.abc import Iterable, Iterator

from hpc_lpm.schedules.instructions import (
    Backward,
    Forward,
    Instruction,
    ReceiveTiedWeights,
    Replay,
    Update,
)


def lagged_micro_batches(programme: Iterable[Instruction]) -> frozenset[int]:
    """Return the micro-batches with an update between their forward and their backward.

    Tied weights that come from another stage are an update like any other.
    """
    updates = 0
    updates_at_forward: dict[int, int] = {}
    lagged = set()
    for instruction in programme:
        match instruction:
            case Forward(micro_batch):
                updates_at_forward[micro_batch] = updates
            case Backward(micro_batch) if updates_at_forward.pop(micro_batch) != updates:
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
