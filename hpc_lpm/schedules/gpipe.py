"""GPipe: all forwards of a step, then all its backwards."""

from hpc_lpm.schedules.base import Schedule


class GPipe(Schedule):
    """GPipe (Huang et al. 2019): every stage holds all micro-batches of a step.

    Three stages, two micro-batches per step, u = optimizer step:

        stage 0  F0  F1  .   .   .   .   B0  B1u F2  F3  ...
        stage 1  .   F0  F1  .   .   B0  B1u .   .   F2  ...
        stage 2  .   .   F0  F1  B0  B1u .   .   .   .   ...

    Backwards run in ascending order, so that gradients are added up in the order of sequential
    training and equal its own to the last bit.
    """

    name = "gpipe"
    description = "all forwards, then all backwards"
    flushes = True

    def ahead(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return M - 1, the same at every stage."""
        return micro_batches_per_step - 1
