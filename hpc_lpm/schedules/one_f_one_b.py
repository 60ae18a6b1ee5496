"""1F1B: as few micro-batches in flight as possible, and a flush before every update."""

from hpc_lpm.schedules.base import Schedule


class OneForwardOneBackward(Schedule):
    """1F1B with a flush (Narayanan et al. 2021).

    Three stages, four micro-batches per step; the pipeline empties before every update u:

        stage 0  F0  F1  F2  .   .   B0  F3  B1  .   B2  .   B3u F4  F5 ...
        stage 1  .   F0  F1  .   B0  F2  B1  F3  B2  .   B3u .   .   F4 ...
        stage 2  .   .   F0  B0  F1  B1  F2  B2  F3  B3u .   .   .   .  ...
    """

    name = "1f1b"
    description = "1F1B with a flush before every update"
    flushes = True
    takes_lead = True

    def ahead(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return lead * (stages - 1 - stage), but never more than M - 1: a step holds no more."""
        return min(lead * (stages - 1 - stage), micro_batches_per_step - 1)
