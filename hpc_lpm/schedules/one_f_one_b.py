"""1F1B: as few micro-batches in flight as possible, and a flush before every update."""

from collections.abc import Iterator

from hpc_lpm.schedules.instructions import Instruction
from hpc_lpm.schedules.ordering import check_arguments, forwards_ahead


def one_f_one_b(
    stage: int,
    stages: int,
    micro_batches_per_step: int,
    total_micro_batches: int,
    lead: int = 1,
) -> Iterator[Instruction]:
    """Yield the computation of `stage` under 1F1B with a flush (Narayanan et al. 2021).

    Three stages, four micro-batches a step; the pipeline empties before every update u:

        stage 0  F0  F1  F2  .   .   B0  F3  B1  .   B2  .   B3u F4  F5 ...
        stage 1  .   F0  F1  .   B0  F2  B1  F3  B2  .   B3u .   .   F4 ...
        stage 2  .   .   F0  B0  F1  B1  F2  B2  F3  B3u .   .   .   .  ...

    Raises:
        ValueError: if an argument is out of range.
    """
    check_arguments(stage, stages, micro_batches_per_step, total_micro_batches, lead)
    ahead = one_f_one_b_ahead(stage, stages, micro_batches_per_step, lead)
    for first in range(0, total_micro_batches, micro_batches_per_step):
        count = min(micro_batches_per_step, total_micro_batches - first)
        yield from forwards_ahead(first, count, ahead, micro_batches_per_step)


def one_f_one_b_ahead(stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
    """Return by how many micro-batches forwards are ahead of backwards at `stage`."""
    return min(lead * (stages - 1 - stage), micro_batches_per_step - 1)
