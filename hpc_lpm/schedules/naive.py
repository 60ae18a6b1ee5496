"""Naive model parallelism: one micro-batch at a time in the whole pipeline."""

from collections.abc import Iterator

from hpc_lpm.schedules.instructions import Instruction
from hpc_lpm.schedules.ordering import check_arguments, forwards_ahead


def naive(
    stage: int,
    stages: int,
    micro_batches_per_step: int,
    total_micro_batches: int,
    lead: int = 1,
) -> Iterator[Instruction]:
    """Yield the computation of `stage` with one micro-batch in flight; `lead` has no meaning here.

    Three stages, two micro-batches a step, u = optimizer step:

        stage 0  F0  .   .   .   .   B0  F1  .   .   .   .   B1u ...
        stage 1  .   F0  .   .   B0  .   .   F1  .   .   B1u .   ...
        stage 2  .   .   F0  B0  .   .   .   .   F1  B1u .   .   ...

    Raises:
        ValueError: if an argument is out of range.
    """
    check_arguments(stage, stages, micro_batches_per_step, total_micro_batches, lead)
    ahead = naive_ahead(stage, stages, micro_batches_per_step, lead)
    yield from forwards_ahead(0, total_micro_batches, ahead, micro_batches_per_step)


def naive_ahead(stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
    """Return 0: every forward is followed by its own backward, at every stage."""
    return 0
