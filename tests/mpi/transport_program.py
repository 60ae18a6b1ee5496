"""Run under mpirun -n 2: messages of every kind cross both ways, in order and unharmed."""

import sys
import time

import torch
from mpi4py import MPI

from hpc_lpm.engine.pipeline.boundary import BoundarySpec, TensorSpec
from hpc_lpm.engine.pipeline.transport import Channel

MESSAGES = 40


def message(rank: int, number: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1000 * rank + number)
    rows = 1 + number % 5
    large = torch.randn(rows, 3, 64 * 1024, generator=generator)
    return (
        large.transpose(1, 2) if number % 2 else large,
        torch.randint(0, 9, (rows,), generator=generator),
        torch.randn(4, generator=generator).to(torch.bfloat16),
        torch.tensor(number % 3 == 0),
    )


def main() -> None:
    comm = MPI.COMM_WORLD
    rank, other = comm.Get_rank(), 1 - comm.Get_rank()
    away = Channel(comm, other, tag=rank, receive_timeout_seconds=60)
    home = Channel(comm, other, tag=other, receive_timeout_seconds=60)
    home.expect(BoundarySpec.of(message(other, n)).tensors for n in range(MESSAGES))
    # Every message leaves before the first is received: a sender that blocks would hang here.
    for n in range(MESSAGES):
        away.send(message(rank, n))
    for n in range(MESSAGES):
        if n % 7 == rank:
            time.sleep(0.003)
        for got, expected in zip(home.receive(), message(other, n), strict=True):
            assert got.dtype == expected.dtype and torch.equal(got, expected), n
    away.flush()
    sent = sum(t.numel() * t.element_size() for n in range(MESSAGES) for t in message(rank, n))
    assert away.bytes_sent == sent
    assert TensorSpec((2, 0), torch.float32).empty().shape == (2, 0)
    comm.Barrier()
    sys.stdout.write(f"rank {rank} received everything\n")


main()
