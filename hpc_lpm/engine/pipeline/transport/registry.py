"""The transports by name. A new one is a file of its own and an entry here."""

from collections.abc import Callable

from hpc_lpm.engine.pipeline.transport.channel import Circumstances, StageChannels
from hpc_lpm.engine.pipeline.transport.mpi import open_mpi_channels
from hpc_lpm.engine.pipeline.transport.torch_channel import open_torch_channels
from hpc_lpm.errors import look_up

TRANSPORTS: dict[str, Callable[[Circumstances], StageChannels]] = {
    "mpi": open_mpi_channels,
    "torch": open_torch_channels,
}


def open_channels(name: str, circumstances: Circumstances) -> StageChannels:
    """Open a stage's channels over the transport of that name (collective)."""
    return look_up("transport", name, TRANSPORTS)(circumstances)
