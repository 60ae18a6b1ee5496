"""Insertion of communication into a programme that was planned as computation alone."""

from collections.abc import Iterable, Iterator

from hpc_lpm.schedules.instructions import (
    Backward,
    Forward,
    Instruction,
    ReceiveActivation,
    ReceiveGradient,
    SendActivation,
    SendGradient,
)


def with_communication(
    programme: Iterable[Instruction], stage: int, stages: int
) -> Iterator[Instruction]:
    """Yield `programme` with a receive before and a send after every pass that needs one.

    On a stage in the middle, F3 becomes RA3 F3 SA3 and B3 becomes RG3 B3 SG3. The gradient leaves
    before the update that may follow: the previous stage does not wait for it.
    """
    has_previous = stage > 0
    has_next = stage < stages - 1
    for instruction in programme:
        match instruction:
            case Forward(micro_batch):
                if has_previous:
                    yield ReceiveActivation(micro_batch)
                yield instruction
                if has_next:
                    yield SendActivation(micro_batch)
            case Backward(micro_batch):
                if has_next:
                    yield ReceiveGradient(micro_batch)
                yield instruction
                if has_previous:
                    yield SendGradient(micro_batch)
            case _:
                yield instruction
