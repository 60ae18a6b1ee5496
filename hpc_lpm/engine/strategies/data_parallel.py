"""What strategies of data parallelism have in common."""

from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.errors import InputError


class DataParallel(Strategy):
    """Every rank holds the whole model and trains its share of a step's micro-batches."""

    data_parallel = True

    def check(self, run: PlannedRun) -> None:
        """Refuse micro-batches that the ranks cannot share evenly."""
        super().check(run)
        if run.settings.micro_batches % run.ranks:
            raise InputError(
                f"--micro-batches {run.settings.micro_batches} is not divisible by the "
                f"{run.ranks} ranks of {self.name}, which share them: use a multiple of the ranks."
            )
