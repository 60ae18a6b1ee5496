"""Which transport a run takes, and whether it needs a progress thread."""

import logging

from hpc_lpm.engine.pipeline.placement import Placement
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.scheduled import LaggingOptions

_logger = logging.getLogger(__name__)


def with_transport(
    settings: TrainSettings, placement: Placement, *, threads_may_call_mpi: bool
) -> TrainSettings:
    """Return the settings with `transport` and `progress_thread` decided.

    `auto` is NCCL (`torch`) where every rank has a GPU of its own, else `mpi`. The progress thread
    runs by default where messages cross a network under MPI; shared memory needs none, and gloo
    and NCCL have their own.
    """
    own = LaggingOptions.of(settings.own)
    transport = own.transport
    if transport == "auto":
        transport = "torch" if placement.own_gpus else "mpi"
    wanted = own.progress_thread
    if wanted is None:
        wanted = placement.hosts > 1
    progress_thread = wanted and transport == "mpi"
    if progress_thread and not threads_may_call_mpi:
        _logger.warning(
            "MPI was built or started without MPI_THREAD_MULTIPLE, so there is no progress "
            "thread: large messages over a network may wait while stages compute; use an MPI with "
            "thread support or --transport torch."
        )
        progress_thread = False
    return settings.with_own(transport=transport, progress_thread=progress_thread)
