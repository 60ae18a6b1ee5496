"""The strategy of data parallelism with PyTorch's own FSDP2 (`fully_shard`)."""

from typing import TYPE_CHECKING

from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.data_parallel import DataParallel
from hpc_lpm.errors import InputError

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner


class FullyShardedDataParallel(DataParallel):
    """Every rank keeps its share of each weight, and PyTorch gathers one layer after the other."""

    name = "fsdp"
    description = "data parallelism, weights and optimizer sharded by PyTorch's FSDP2"
    colour = "#7a6a1f"
    shards = True

    def check(self, run: PlannedRun) -> None:
        """Refuse what cannot be divided into rows: an order in memory, or an update."""
        from hpc_lpm.engine.update_checks import check_by_rows

        super().check(run)
        settings = run.settings
        if settings.memory_format != "contiguous":
            raise InputError(
                f"--memory-format {settings.memory_format} was given with --strategy {self.name}, "
                "which divides weights into rows that lie one after the other: use contiguous, or "
                "another strategy."
            )
        check_by_rows(settings.optimizer, self.name)

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner of this rank's shards."""
        from hpc_lpm.engine.runners.fsdp import FSDPRunner

        return FSDPRunner(context)
