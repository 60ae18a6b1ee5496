"""Run under mpirun -n 2: messages of every kind cross both ways, in order and unharmed.

transport_program.py {mpi,torch}
"""

import gc
import sys
import time
from contextlib import ExitStack

import psutil
import torch
import torch.distributed

from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.pipeline.boundary import BoundarySpec, TensorSpec
from hpc_lpm.engine.pipeline.process_group import join_process_group
from hpc_lpm.engine.pipeline.transport.channel import Circumstances
from hpc_lpm.engine.pipeline.transport.registry import open_channels
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.schedules.placement import Placement

MESSAGES = 40
LARGE_BYTES = 64 * 2**20


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
    job, cpu = MpiJob(60), torch.device("cpu")
    join_process_group(job, cpu)
    rank, other = job.rank, 1 - job.rank
    with ExitStack() as resources:
        topology = PipelineTopology(job.rank, Placement.in_a_loop(job.size), 1)
        circumstances = Circumstances(job, topology, (), cpu, False, 60, False, resources)
        channels = open_channels(sys.argv[1], circumstances)
        agreed = channels.stages[0].agreed
        away, home = (
            (agreed.to_next, agreed.from_next)
            if rank == 0
            else (agreed.to_previous, agreed.from_previous)
        )
        large = torch.ones(LARGE_BYTES, dtype=torch.uint8)
        home.expect([BoundarySpec.of(large).tensors])
        away.send((large,))
        home.receive()
        away.flush()
        # First of all, while the allocator has no memory of its own to give.
        before = psutil.Process().memory_info().rss
        del large
        gc.collect()
        deadline = time.monotonic() + 60
        while before - psutil.Process().memory_info().rss < LARGE_BYTES / 2:
            assert time.monotonic() < deadline, "still held"
            time.sleep(0.01)
        home.expect(BoundarySpec.of(message(other, n)).tensors for n in range(MESSAGES))
        # Every message leaves before the first is received: a sender that blocks would hang here.
        for n in range(MESSAGES):
            away.send(message(rank, n))
        for n in range(MESSAGES):
            if n % 7 == rank:
                time.sleep(0.003)
            for got, expected in zip(home.receive(), message(other, n), strict=True):
                assert got is not None
                assert got.dtype == expected.dtype and torch.equal(got, expected), n
        away.flush()
        sent = LARGE_BYTES + sum(
            t.numel() * t.element_size() for n in range(MESSAGES) for t in message(rank, n)
        )
        assert away.bytes_sent == sent

        assert TensorSpec((2, 0), torch.float32).empty().shape == (2, 0)
        job.barrier()
    sys.stdout.write(f"rank {rank} received everything\n")


main()
