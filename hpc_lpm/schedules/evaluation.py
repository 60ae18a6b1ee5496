"""Forward passes alone, for evaluation between training steps."""

from collections.abc import Iterator

from hpc_lpm.schedules.instructions import Forward, Instruction


def evaluation(micro_batches: int) -> Iterator[Instruction]:
    """Yield the forwards of `micro_batches` micro-batches, the same at every stage.

    stage 0  F0  F1  F2  .   .
    stage 1  .   F0  F1  F2  .
    stage 2  .   .   F0  F1  F2
    """
    for micro_batch in range(micro_batches):
        yield Forward(micro_batch)
