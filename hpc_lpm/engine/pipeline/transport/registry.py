"""The transports by name, and the choice of one for a run that names none.

A new transport is a file of its own and an entry here.
"""

import logging
from collections.abc import Callable

from hpc_lpm.engine.one_process.channels import open_played_channels
from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.pipeline.options import LaggingOptions
from hpc_lpm.engine.pipeline.transport.channel import Circumstances, RankChannels
from hpc_lpm.engine.pipeline.transport.torch_channel import open_torch_channels
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.topology import RankLocations
from hpc_lpm.errors import InputError, look_up


def _open_mpi_channels(circumstances: Circumstances) -> RankChannels:
    # Importing it starts MPI, which ranks of torchrun do without.
    from hpc_lpm.engine.pipeline.transport.mpi import open_mpi_channels

    return open_mpi_channels(circumstances)


TRANSPORTS: dict[str, Callable[[Circumstances], RankChannels]] = {
    "mpi": _open_mpi_channels,
    "torch": open_torch_channels,
}

_logger = logging.getLogger(__name__)


def open_channels(name: str, circumstances: Circumstances) -> RankChannels:
    """Open a rank's channels over the transport of that name (collective)."""
    if isinstance(circumstances.job, PlayedJob):
        return open_played_channels(circumstances)
    return look_up("transport", name, TRANSPORTS)(circumstances)


def with_transport(
    settings: TrainSettings, locations: RankLocations, *, mpi: bool, threads_may_call_mpi: bool
) -> TrainSettings:
    """Return the settings with `transport` and `progress_thread` decided.

    `auto` becomes `torch` if every rank has a GPU of its own (NCCL) or the ranks do without `mpi`,
    else `mpi`. By default the progress thread runs where MPI's messages cross a network; shared
    memory needs none, and gloo and NCCL have threads of their own.

    Raises:
        InputError: if MPI is asked for where the ranks do without.
    """
    own = LaggingOptions.of(settings.own)
    transport = own.transport
    if transport == "auto":
        transport = "mpi" if mpi and not locations.own_gpus else "torch"
    if transport == "mpi" and not mpi:
        raise InputError(
            "--transport mpi was given, but these ranks found each other without MPI: start them "
            "with mpirun, or leave the transport out."
        )
    wanted = own.progress_thread
    if wanted is None:
        wanted = locations.hosts > 1
    progress_thread = wanted and transport == "mpi"
    if progress_thread and not threads_may_call_mpi:
        _logger.warning(
            "MPI was built or started without MPI_THREAD_MULTIPLE, so there is no progress "
            "thread: large messages over a network may wait while stages compute; use an MPI with "
            "thread support or --transport torch."
        )
        progress_thread = False
    return settings.with_own(transport=transport, progress_thread=progress_thread)
