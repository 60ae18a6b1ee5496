"""Insertion of the averaging of gradients over a stage's replicas into a programme."""

from collections.abc import Iterable, Iterator

from hpc_lpm.schedules.instructions import Forward, Instruction, Reduce, Update


def with_replicas(programme: Iterable[Instruction], *, flushes: bool) -> Iterator[Instruction]:
    """Yield `programme` with every update waiting for an average that begins where it stood.

    Where the schedule does not flush, the update moves behind the next forward, so that the average
    is taken while that forward computes. One stage of two replicas, two micro-batches a step, a the
    start of an average, u the update:

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
