"""torch.distributed and DeepSpeed on the ranks that MPI started."""

import logging
import os
import socket

import torch
import torch.distributed
from torch._C._distributed_c10d import TCPStore

from hpc_lpm.engine.job import Job
from hpc_lpm.ranks import local_rank_from_environment

LOOPBACK = "127.0.0.1"
_SHARED_MEMORY_ALL_REDUCE = "deepspeed_shm_comm"


def join_process_group(job: Job, device: torch.device) -> None:
    """Make the MPI ranks a torch process group and hand it to DeepSpeed (collective).

    The rendezvous store listens on a port that the system chose, so two jobs on one machine
    cannot collide.
    """
    _export_rank(job)
    if torch.distributed.is_initialized():
        return
    hosts = set(job.all_gather(socket.gethostname()))
    address = LOOPBACK
    if len(hosts) == 1:
        # The host's own name need not resolve on a laptop or in a container.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    else:
        address = job.broadcast(socket.gethostname())
    port = 0
    if job.rank == 0:
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
        port = store.port
    port = job.broadcast(port)
    if job.rank != 0:
        store = TCPStore(address, port, is_master=False)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    torch.distributed.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=job.rank,
        world_size=job.size,
    )
    quieten_deepspeed()
    import deepspeed

    # Its shared-memory all-reduce would be compiled here and now, and pipelines never use it.
    deepspeed.ops.__compatible_ops__[_SHARED_MEMORY_ALL_REDUCE] = False
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def quieten_deepspeed() -> None:
    """Leave DeepSpeed's warnings and errors alone, drop its remarks."""
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)


def _export_rank(job: Job) -> None:
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(job.rank), str(job.size)
    os.environ["LOCAL_RANK"] = str(local_rank_from_environment())
