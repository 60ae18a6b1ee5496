"""Forward-backward parallel: no stage ever waits for a flush or for another stage's update."""

from hpc_lpm.schedules.base import Schedule


class ForwardBackwardParallel(Schedule):
    """Forwards run lead * (stages - 1 - stage) ahead of backwards, across updates.

    Three stages, lead 1, two micro-batches per step, u = optimizer step, one slot per pass:

        stage 0  F0  F1  F2  .   .   B0  F3  B1u F4  B2  F5  B3u ...
        stage 1  .   F0  F1  .   B0  F2  B1u F3  B2  F4  B3u F5  ...
        stage 2  .   .   F0  B0  F1  B1u F2  B2  F3  B3u F4  B4  ...
                 warm-up             | steady: every slot is taken, also across updates

    The drain (backwards alone) comes at the very end of the programme.
    """

    name = "fbp"
    description = "forward-backward parallel, no flush"
    flushes = False
    takes_lead = True
    alternates = True

    def ahead(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return d_k = lead * (stages - 1 - stage)."""
        return lead * (stages - 1 - stage)
