"""The strategy of data parallelism with Horovod."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.data_parallel import DataParallel
from hpc_lpm.errors import InputError
from hpc_lpm.options import CommandOption, StrategyOptions
from hpc_lpm.quantities import Milliseconds
from hpc_lpm.ranks import agreed_claim

if TYPE_CHECKING:
    from hpc_lpm.engine.runners.runner import RunContext, Runner
    from hpc_lpm.engine.settings import TrainSettings


class HorovodOptions(StrategyOptions):
    """The options that tune Horovod."""

    cycle_time_milliseconds: Annotated[
        Milliseconds | None,
        Field(
            description="how often Horovod's thread wakes up; by default HOROVOD_CYCLE_TIME, or 5",
        ),
        CommandOption("Horovod", "cycle-time", "MS", computes=False),
    ] = None
    fusion_megabytes: Annotated[
        float | None,
        Field(
            ge=0,
            description="MiB of gradients that Horovod averages at a time; by default "
            "HOROVOD_FUSION_THRESHOLD, or Horovod's own",
        ),
        CommandOption("Horovod", "fusion", "MiB", computes=False),
    ] = None


class Horovod(DataParallel):
    """Every rank holds the whole model, and Horovod averages gradients over MPI."""

    name = "horovod"
    description = "data parallelism, gradients averaged by Horovod over MPI"
    options = HorovodOptions
    package = "horovod"
    colour = "#12876f"
    set_once = frozenset({"cycle_time_milliseconds", "fusion_megabytes"})

    def require_installed(self) -> None:
        """Refuse to train where Horovod cannot be imported, or ranks do without MPI."""
        claim = agreed_claim()
        if claim is not None and not claim.by_mpi and claim.size > 1:
            raise InputError(
                f"--strategy horovod averages gradients over MPI, but the {claim.size} ranks were "
                f"started by {claim.source}: start them with mpirun."
            )
        from hpc_lpm.engine.runners.horovod import import_horovod

        import_horovod()

    def tunable(self, settings: "TrainSettings") -> dict[str, tuple[Any, ...]]:
        """Return what may be tried: how often Horovod's thread wakes up, and its fusion, too."""
        own = {"cycle_time_milliseconds": (20.0, 2.0), "fusion_megabytes": (8.0, 1.0)}
        return {**super().tunable(settings), **own}

    def environment(self, settings: "TrainSettings") -> Mapping[str, str]:
        """Return the variables that tune Horovod.

        With Horovod's default cycle of 1 ms, its background thread takes too much time from the one
        core of a rank.
        """
        return {"HOROVOD_CYCLE_TIME": "5", "HOROVOD_CPU_OPERATIONS": "MPI"}

    def check(self, run: PlannedRun) -> None:
        """Refuse uneven shares, and optimizers that Horovod cannot build anew."""
        from hpc_lpm.engine.update_checks import check_rebuilt

        super().check(run)
        check_rebuilt(run.settings.optimizer)

    def start(self, context: "RunContext") -> "Runner":
        """Return the runner of this rank's replica."""
        from hpc_lpm.engine.runners.horovod import HorovodRunner

        return HorovodRunner(context)
