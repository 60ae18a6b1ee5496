"""Orders of computation: forwards a fixed number ahead of backwards, and forwards alone."""

from collections.abc import Iterator
from itertools import count as count_from

from hpc_lpm.schedules.instructions import Backward, Forward, Instruction, Update
from hpc_lpm.schedules.placement import Placement

Run = tuple[tuple[type[Forward] | type[Backward], ...], int]
"""Kinds of passes in their order, and how many times in a row they come."""


def runs_ahead(count: int, ahead: int) -> tuple[Run, Run, Run]:
    """Return the passes of `count` micro-batches: warm-up, alternation, drain.

    Before backward n, forward n + `ahead` has run. `ahead` may exceed `count`: all forwards then
    come first.
    """
    warm_up = min(ahead, count)
    return ((Forward,), warm_up), ((Forward, Backward), count - warm_up), ((Backward,), warm_up)


def forwards_ahead(
    first: int, count: int, ahead: int, micro_batches_per_step: int
) -> Iterator[Instruction]:
    """Yield `runs_ahead` of `count` micro-batches from `first` on.

    An update follows every backward that completes an optimizer step, and the last of all: the last
    step may be shorter.
    """
    last = first + count - 1
    forward, backward = count_from(first), count_from(first)
    for kinds, times in runs_ahead(count, ahead):
        for _ in range(times):
            for kind in kinds:
                if kind is Forward:
                    yield Forward(next(forward))
                    continue
                micro_batch = next(backward)
                yield Backward(micro_batch)
                step, place = divmod(micro_batch, micro_batches_per_step)
                if place == micro_batches_per_step - 1 or micro_batch == last:
                    yield Update(step)


def check_arguments(
    stage: int, stages: int, micro_batches_per_step: int, total_micro_batches: int, lead: int
) -> None:
    """Check the arguments that every schedule is called with.

    Raises:
        ValueError: if a number is out of range.
    """
    if not 0 <= stage < stages:
        raise ValueError(f"stage is {stage}, accepted is 0 to {stages - 1}")
    if micro_batches_per_step < 1:
        raise ValueError(
            f"micro_batches_per_step is {micro_batches_per_step}, at least 1 is accepted"
        )
    if lead < 1:
        raise ValueError(f"lead is {lead}, at least 1 is accepted")
    if total_micro_batches < 0:
        raise ValueError(f"total_micro_batches is {total_micro_batches}, at least 0 is accepted")


def evaluation(micro_batches: int, device: int, placement: Placement) -> Iterator[Instruction]:
    """Yield the forwards of `micro_batches` micro-batches on one device.

    stage 0  F0  F1  F2  .   .
    stage 1  .   F0  F1  F2  .
    stage 2  .   .   F0  F1  F2

    A device with several chunks takes them as the micro-batches would come if a new one entered as
    often as the device can run all its chunks.
    """
    held = list(enumerate(placement.held[device]))
    slots = [
        (micro_batch * placement.chunks + stage, micro_batch, chunk)
        for micro_batch in range(micro_batches)
        for chunk, stage in held
    ]
    for _, micro_batch, chunk in sorted(slots):
        yield Forward(micro_batch, chunk)
