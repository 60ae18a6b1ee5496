"""Naive model parallelism: one micro-batch at a time in the whole pipeline."""

from hpc_lpm.schedules.base import Schedule


class Naive(Schedule):
    """One micro-batch in flight, whatever the number of stages.

    Three stages, two micro-batches per step, u = optimizer step:

        stage 0  F0  .   .   .   .   B0  F1  .   .   .   .   B1u ...
        stage 1  .   F0  .   .   B0  .   .   F1  .   .   B1u .   ...
        stage 2  .   .   F0  B0  .   .   .   .   F1  B1u .   .   ...
    """

    name = "naive"
    description = "one micro-batch at a time"
    flushes = True

    def ahead(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return 0: every forward is followed by its own backward, at every stage."""
        return 0
