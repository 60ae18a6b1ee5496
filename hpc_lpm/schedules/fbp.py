"""Forward-backward parallel: no stage ever waits for a flush or for another stage's update."""

from collections.abc import Iterator

from hpc_lpm.schedules.instructions import Instruction
from hpc_lpm.schedules.ordering import check_arguments, forwards_ahead


def fbp(
    stage: int,
    stages: int,
    micro_batches_per_step: int,
    total_micro_batches: int,
    lead: int = 1,
) -> Iterator[Instruction]:
    """Yield the computation of `stage`, whose forwards run lead * (stages - 1 - stage) ahead.

    Three stages, lead 1, two micro-batches a step, u = optimizer step, one slot a pass:

        stage 0  F0  F1  F2  .   .   B0  F3  B1u F4  B2  F5  B3u ...
        stage 1  .   F0  F1  .   B0  F2  B1u F3  B2  F4  B3u F5  ...
        stage 2  .   .   F0  B0  F1  B1u F2  B2  F3  B3u F4  B4  ...
                 warm-up             | steady: every slot is taken, also across updates

    The drain (backwards alone) comes at the very end of the programme.

    Raises:
        ValueError: if an argument is out of range.
    """
    check_arguments(stage, stages, micro_batches_per_step, total_micro_batches, lead)
    ahead = fbp_ahead(stage, stages, micro_batches_per_step, lead)
    yield from forwards_ahead(0, total_micro_batches, ahead, micro_batches_per_step)


def fbp_ahead(stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
    """Return d_k, by how many micro-batches forwards are ahead of backwards at `stage`."""
    return lead * (stages - 1 - stage)
