"""Run under mpirun -n 2: rank 0 sends more, then less, than expected; rank 1 prints the errors."""

import sys

import torch
from mpi4py import MPI

from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.boundary import BoundarySpec
from hpc_lpm.engine.pipeline.transport.mpi import MpiChannel

# A longer message must be short enough to be copied: Open MPI writes a long one that it fetches
# itself beyond the end of the buffer, which is why the engine checks shapes where they are sent.
SENT_AND_EXPECTED = ((200, 100), (50_000, 100_000), (2, 100), (100, 100))


def main() -> None:
    comm = MPI.COMM_WORLD
    rank = comm.Get_rank()
    for tag, (length, expected) in enumerate(SENT_AND_EXPECTED):
        channel = MpiChannel(comm, 1 - rank, tag, receive_timeout_seconds=5)
        if rank == 0:
            channel.send((torch.zeros(length, dtype=torch.uint8),))
            channel.flush()
            continue
        channel.expect([BoundarySpec.of(torch.zeros(expected, dtype=torch.uint8)).tensors])
        try:
            channel.receive()
        except BoundaryError as error:
            sys.stdout.write(f"{length}: {error}\n")


main()
