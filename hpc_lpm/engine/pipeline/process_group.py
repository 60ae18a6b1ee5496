"""torch.distributed and DeepSpeed on the ranks that MPI started."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed
from torch._C._distributed_c10d import TCPStore

from hpc_lpm.engine.job import Job
from hpc_lpm.engine.pipeline.placement import find_placement
from hpc_lpm.engine.pipeline.rendezvous import master_address, open_store
from hpc_lpm.errors import TrainingError
from hpc_lpm.ranks import local_rank_from_environment

_MPIRUN_LOCAL_RANK = "OMPI_COMM_WORLD_LOCAL_RANK"
_SHARED_MEMORY_ALL_REDUCE = "deepspeed_shm_comm"


def join_process_group(job: Job, device: torch.device) -> None:
    """Make the MPI ranks a torch process group and hand it to DeepSpeed (collective).

    In a Slurm job the store at which ranks meet listens on a port that comes from the job's number,
    else on one that the system chose: two jobs on one machine do not collide. Operations of the
    group give up after `job.limit_seconds`. Host tensors go over gloo; those of GPUs over NCCL if
    no two ranks share one.

    Raises:
        TrainingError: if a rank does not come in time.
    """
    _export_rank(job, device)
    if torch.distributed.is_initialized():
        return
    placement = find_placement(job, device)
    if placement.hosts == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    address = job.broadcast(master_address(placement.hosts) if job.rank == 0 else None)
    with meeting(job):
        _meet(job, address, "cpu:gloo,cuda:nccl" if placement.own_gpus else "gloo")
    quieten_deepspeed()
    import deepspeed

    # Its shared-memory all-reduce would be compiled here and now, and pipelines never use it.
    deepspeed.ops.__compatible_ops__[_SHARED_MEMORY_ALL_REDUCE] = False
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


@contextmanager
def meeting(job: Job) -> Iterator[None]:
    """Surround what makes process groups: a rank that does not come is told in one sentence."""
    try:
        yield
    except torch.distributed.DistError as error:
        raise TrainingError(
            f"rank {job.rank}: the ranks cannot form a process group within "
            f"{job.limit_seconds:g} s: one hangs or is gone, or a firewall is between them; raise "
            "--receive-timeout if it is but slow and, where hosts have several networks, set "
            "GLOO_SOCKET_IFNAME to the interface that joins them."
        ) from error


def _meet(job: Job, address: str, backend: str) -> None:
    limit = timedelta(seconds=job.limit_seconds)
    port = 0
    if job.rank == 0:
        store = open_store(address, limit)
        port = store.port
    port = job.broadcast(port)
    if job.rank != 0:
        store = TCPStore(address, port, is_master=False, timeout=limit)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    torch.distributed.init_process_group(
        backend=backend, store=store, rank=job.rank, world_size=job.size, timeout=limit
    )


def quieten_deepspeed() -> None:
    """Leave DeepSpeed's warnings and errors alone, drop its remarks."""
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)


def _export_rank(job: Job, device: torch.device) -> None:
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(job.rank), str(job.size)
    local_rank = local_rank_from_environment() if device.index is None else device.index
    # DeepSpeed takes this for the number of the rank's device, and insists that mpirun agrees.
    os.environ["LOCAL_RANK"] = str(local_rank)
    if _MPIRUN_LOCAL_RANK in os.environ:
        os.environ[_MPIRUN_LOCAL_RANK] = str(local_rank)
