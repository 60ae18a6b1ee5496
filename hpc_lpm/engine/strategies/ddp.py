"""The strategy of data parallelism with PyTorch's own DistributedDataParallel."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from hpc_lpm.engine.strategies.data_parallel import DataParallel
from hpc_lpm.options import CommandOption, StrategyOptions

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings


class DDPOptions(StrategyOptions):
    """The options that tune DistributedDataParallel."""

    bucket_megabytes: Annotated[
        float,
        Field(gt=0, description="gradients that are averaged at a time, while others are computed"),
        CommandOption("DDP", metavar="MB", computes=False),
    ] = 25.0


class DistributedDataParallel(DataParallel):
    """Every rank holds the whole model, and PyTorch averages gradients during the backward pass."""

    name = "ddp"
    description = "data parallelism, gradients averaged by PyTorch's DistributedDataParallel"
    options = DDPOptions
    colour = "#4f9d2f"

    def tunable(self, settings: "TrainSettings") -> dict[str, tuple[Any, ...]]:
        """Return what may be tried: the size of buckets too."""
        return {**super().tunable(settings), "bucket_megabytes": (1.0, 100.0)}

    def bucket_bytes(self, settings: "TrainSettings") -> int:
        """Return the bytes of a bucket."""
        assert isinstance(settings.own, DDPOptions)
        return int(settings.own.bucket_megabytes * 2**20)

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner of this rank's replica."""
        from hpc_lpm.engine.runners.ddp import DDPRunner

        return DDPRunner(context)
