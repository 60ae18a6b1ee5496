"""Insertion of replays into a programme that was planned as forwards, backwards and updates."""

from collections.abc import Iterable, Iterator

from hpc_lpm.schedules.instructions import Backward, Forward, Instruction, Replay, Update


def with_replays(programme: Iterable[Instruction]) -> Iterator[Instruction]:
    """Yield `programme` with a replay before the backward of every lagged micro-batch.

    A micro-batch lags if an update comes between its two passes. Communication is inserted after
    this: the replay then runs while the gradient that its backward waits for is still on its way.
    """
    updates = 0
    updates_at_forward: dict[int, int] = {}
    for instruction in programme:
        match instruction:
            case Forward(micro_batch):
                updates_at_forward[micro_batch] = updates
            case Backward(micro_batch) if updates_at_forward.pop(micro_batch) != updates:
                yield Replay(micro_batch)
            case Update():
                updates += 1
        yield instruction
