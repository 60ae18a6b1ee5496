"""A script of the user's own that writes what it learns of its ranks, as JSON, to OUT-RANK.

    launched_script.py OUT [torch | mpi4py]

The script initialises torch.distributed or mpi4py itself if it is told so.
"""

import json
import sys
import time
from pathlib import Path

from hpc_lpm.engine.job import Job, start_job
from hpc_lpm.errors import TrainingError
from hpc_lpm.ranks import local_rank_from_environment, rank_from_environment, ranks_from_environment

LARGE = 10 * 2**20
"""More than a store takes at once."""


def main() -> None:
    own = sys.argv[2] if len(sys.argv) > 2 else ""
    if own == "torch":
        import deepspeed
        import torch

        from hpc_lpm.engine.pipeline.process_group import start_deepspeed

        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{sys.argv[1]}-store",
            rank=rank_from_environment(),
            world_size=ranks_from_environment(),
        )
    if own == "mpi4py":
        from mpi4py import MPI

        # Messages of the script's own, with tags that anybody may use, must not meet ours.
        world, tags = MPI.COMM_WORLD, range(200)
        other = 1 - world.rank
        requests = [world.isend("mine", other, tag) for tag in tags]
    job = start_job(parallel=False, limit_seconds=120)
    told = {
        "rank": job.rank,
        "size": job.size,
        "environment": [rank_from_environment(), ranks_from_environment()],
        "local": local_rank_from_environment(),
        "mpi": job.communicator is not None,
        "started mpi": "mpi4py.MPI" in sys.modules,
        "gathered": job.all_gather(f"from {job.rank}"),
        "broadcast": len(job.broadcast(b"x" * LARGE if job.rank == 0 else None)),
    }
    if job.size > 1:
        told |= exchange(job)
    if own == "torch":
        start_deepspeed(job, torch.device("cpu"))
        ones = torch.ones(1)
        deepspeed.comm.all_reduce(ones)
        told["summed"] = ones.item()
    if own == "mpi4py":
        assert all(world.recv(source=other, tag=tag) == "mine" for tag in tags)
        MPI.Request.waitall(requests)
    Path(f"{sys.argv[1]}-{job.rank}").write_text(json.dumps(told))
    job.barrier()


def exchange(job: Job) -> dict[str, object]:
    """Exchange messages with the other of two ranks, then wait in vain, each wait with a limit."""
    other = 1 - job.rank
    first, second, third = job.own_tag(), job.own_tag(), job.own_tag()
    job.send("later", other, second)
    for number in range(3):
        job.send([number, job.rank], other, first)
    received = [job.receive(other, first) for _ in range(3)]
    nothing = job.arrived(other, first)
    received.append(job.receive(other, second))
    usual = job.limit_seconds
    start = time.monotonic()
    job.limit_seconds = 1
    try:
        job.receive(other, first)
    except TimeoutError:
        received.append("nothing more")
    waited = [time.monotonic() - start]
    job.limit_seconds = usual
    job.barrier()
    if job.rank == 0:
        start = time.monotonic()
        job.limit_seconds = 1
        try:
            job.barrier()
        except TrainingError as error:
            received.append(str(error))
        waited.append(time.monotonic() - start)
        job.limit_seconds = usual
        job.send("refused", other, third)
    else:
        # It stays away for as long as the other waits.
        job.receive(other, third)
        job.barrier()
    return {"received": received, "nothing": nothing, "waited": waited}


main()
