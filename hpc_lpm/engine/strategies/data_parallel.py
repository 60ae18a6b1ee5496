"""What strategies of data parallelism have in common."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    from hpc_lpm.engine.settings import TrainSettings
    from hpc_lpm.planning.forecast.case import Case
    from hpc_lpm.planning.forecast.forecast import Forecast


class DataParallel(Strategy):
    """Every rank holds the whole model and trains its share of a step's micro-batches.

    Attributes:
        shards: whether a rank keeps a share of the weights alone, and gathers a layer for its
            passes.
    """

    data_parallel = True
    shards: bool = False

    def bucket_bytes(self, settings: "TrainSettings") -> int:
        """Return the gradients that are averaged at a time; 0 for those of each layer alone."""
        return 0

    def forecasts(self, settings: "TrainSettings", case: "Case") -> "Sequence[Forecast]":
        """Return what averaging over the devices of a case is predicted to do, best first."""
        from hpc_lpm.planning.forecast.data_parallel import forecast_data_parallel
        from hpc_lpm.planning.forecast.sharded import forecast_sharded

        if self.shards:
            return forecast_sharded(case)
        return forecast_data_parallel(case, bucket_bytes=self.bucket_bytes(settings))

    def check(self, run: PlannedRun) -> None:
        """Refuse micro-batches that the ranks cannot share evenly."""
        super().check(run)
        if run.settings.micro_batches % run.ranks:
            raise InputError(
                f"--micro-batches {run.settings.micro_batches} is not divisible by the "
                f"{run.ranks} ranks of {self.name}, which share them: use a multiple of the ranks."
            )
