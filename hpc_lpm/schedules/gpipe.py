"""GPipe: all forwards of a step, then all its backwards."""

from collections.abc import Iterator

from hpc_lpm.schedules.instructions import Instruction
from hpc_lpm.schedules.ordering import check_arguments, forwards_ahead


def gpipe(
    stage: int,
    stages: int,
    micro_batches_per_step: int,
    total_micro_batches: int,
    lead: int = 1,
) -> Iterator[Instruction]:
    """Yield the computation of `stage` under GPipe (Huang et al. 2019); `lead` has no meaning here.

    Three stages, two micro-batches a step, u = optimizer step:

        stage 0  F0  F1  .   .   .   .   B0  B1u F2  F3  ...
        stage 1  .   F0  F1  .   .   B0  B1u .   .   F2  ...
        stage 2  .   .   F0  F1  B0  B1u .   .   .   .   ...

    Backwards run in ascending order, so that gradients are added up in the order of sequential
    training and equal its own to the last bit.

    Raises:
        ValueError: if an argument is out of range.
    """
    check_arguments(stage, stages, micro_batches_per_step, total_micro_batches, lead)
    ahead = gpipe_ahead(stage, stages, micro_batches_per_step, lead)
    for first in range(0, total_micro_batches, micro_batches_per_step):
        count = min(micro_batches_per_step, total_micro_batches - first)
        yield from forwards_ahead(first, count, ahead, micro_batches_per_step)


def gpipe_ahead(stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
    """Return by how many micro-batches forwards are ahead of backwards at every stage."""
    return micro_batches_per_step - 1
