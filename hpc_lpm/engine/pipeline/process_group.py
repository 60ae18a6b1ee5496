"""Starts torch.distributed and DeepSpeed on the ranks of a job."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch._C._distributed_c10d import TCPStore

from hpc_lpm.engine.collectives import making_process_groups, run_on_every_rank
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.store import open_bound_store
from hpc_lpm.engine.topology import find_rank_locations
from hpc_lpm.engine.waits import WAITS
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.host_names import host_names
from hpc_lpm.interfaces import LOOPBACK, interface_of_job, require_named_for_gloo
from hpc_lpm.ranks import local_rank_from_environment

_FIRST_PORT, _PORTS = 20_000, 12_000
"""These are below the ports that Linux gives to outgoing connections (32768 and above)."""
_ANY_PORT = 0

_MPIRUN_LOCAL_RANK = "OMPI_COMM_WORLD_LOCAL_RANK"
_SHARED_MEMORY_ALL_REDUCE = "deepspeed_shm_comm"


def join_process_group(job: Job, device: torch.device) -> None:
    """Make the ranks a torch process group, unless they are one.

    The operations of the group give up after `job.limit_seconds`. Tensors in host memory travel
    over gloo, those on GPUs over NCCL unless two ranks share a GPU. Every rank calls this.

    Raises:
        InputError: if the user has made a group that cannot carry the tensors of these ranks, or
            names a network interface for gloo that a rank's host does not have.
        TrainingError: if a rank does not come in time.
    """
    _export_rank(job, device)
    if torch.distributed.is_initialized():
        _require_backends(device)
        return
    locations = find_rank_locations(job, device)
    if locations.hosts == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    run_on_every_rank(
        job,
        require_named_for_gloo,
        (InputError,),
        lambda found, rank: InputError(f"{found}{rank}."),
    )
    address = job.broadcast(master_address(locations.hosts) if job.rank == 0 else None)
    with making_process_groups(job):
        _meet(job, address, "cpu:gloo,cuda:nccl" if locations.own_gpus else "gloo")


def start_deepspeed(job: Job, device: torch.device) -> None:
    """Make the ranks a torch process group, and hand it to DeepSpeed.

    Raises:
        InputError: as `join_process_group`.
        TrainingError: likewise.
    """
    join_process_group(job, device)
    quieten_deepspeed()
    from hpc_lpm.engine.pipeline.deepspeed_parts import deepspeed

    # Pipelines never use its shared-memory all-reduce, which would be compiled at this point.
    deepspeed.ops.__compatible_ops__[_SHARED_MEMORY_ALL_REDUCE] = False
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def _meet(job: Job, address: str, backend: str) -> None:
    limit = timedelta(seconds=job.limit_seconds)
    store = _common_store(job, address, limit) if job.store is None else job.store
    torch.distributed.init_process_group(
        backend=backend, store=store, rank=job.rank, world_size=job.size, timeout=limit
    )


def _common_store(job: Job, address: str, limit: timedelta) -> TCPStore:
    port = 0
    if job.rank == 0:
        store = open_store(address, limit)
        address, port = store.host, store.port
    address, port = job.broadcast((address, port))
    if job.rank != 0:
        store = TCPStore(address, port, is_master=False, timeout=limit)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    return store


def _require_backends(device: torch.device) -> None:
    """Refuse the user's own process group if it cannot carry what stages exchange."""
    group: Any = torch.distributed.group.WORLD
    for kind in {"cpu", device.type}:
        try:
            group._get_backend(torch.device(kind))
        except RuntimeError:
            raise InputError(
                "torch.distributed was initialised with the backend "
                f"{torch.distributed.get_backend()}, which carries no tensors on {kind}: call "
                "init_process_group('cpu:gloo,cuda:nccl'), or 'gloo' where there are no GPUs, or "
                "leave it to hpc_lpm."
            ) from None


def require_own_gpus(job: Job, device: torch.device, strategy: str) -> None:
    """Refuse ranks that share a GPU, for an engine whose stages talk over NCCL alone (collective).

    Raises:
        InputError: on every rank alike.
    """
    if device.type == "cuda" and not find_rank_locations(job, device).own_gpus:
        raise InputError(
            f"--strategy {strategy} needs a GPU for every rank, since NCCL refuses ranks that "
            "share one: start as many ranks on a node as it has GPUs, or hide the GPUs with "
            "CUDA_VISIBLE_DEVICES= to train on CPUs."
        )


@contextmanager
def noticing_silence(where: str, missing: str, limit_seconds: float) -> Iterator[None]:
    """Say in one sentence that operations of a process group have waited for other ranks in vain.

    Args:
        where: which rank waits, and in which step.
        missing: what it waits for.
        limit_seconds: how long.

    Raises:
        TrainingError: instead of what an operation raises, or of what describes that.
    """
    try:
        with WAITS.in_library():
            yield
    except (RuntimeError, TrainingError) as error:
        raised = error.__cause__ if isinstance(error, TrainingError) else error
        if not isinstance(raised, torch.distributed.DistError) and "gloo" not in str(raised):
            raise
        raise TrainingError(
            f"{where}: no {missing} for {limit_seconds:g} s: another rank hangs or is gone; raise "
            "--receive-timeout if it is only slow."
        ) from error


def quieten_deepspeed() -> None:
    """Make DeepSpeed log errors alone."""
    from hpc_lpm.engine.pipeline.deepspeed_parts import logger

    logger.setLevel(logging.ERROR)


def _export_rank(job: Job, device: torch.device) -> None:
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(job.rank), str(job.size)
    local_rank = local_rank_from_environment() if device.index is None else device.index
    # DeepSpeed takes this as the number of the rank's device, and insists that mpirun agrees.
    os.environ["LOCAL_RANK"] = str(local_rank)
    if _MPIRUN_LOCAL_RANK in os.environ:
        os.environ[_MPIRUN_LOCAL_RANK] = str(local_rank)


def master_address(hosts: int, environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of this host, on which rank 0 runs, by which the other ranks find it.

    On a single host it is the loopback address, since a host's own name need not resolve on a
    laptop or in a container. In a Slurm job it is the name of the job's first node, unless that is
    not this host; otherwise it is the name that this host gives itself.
    """
    if hosts == 1:
        return LOOPBACK
    own = socket.gethostname()
    node_list = environment.get("SLURM_JOB_NODELIST")
    first = host_names(node_list)[0] if node_list else own
    return first if first.partition(".")[0] == own.partition(".")[0] else own


def master_port(environment: Mapping[str, str] = os.environ) -> int:
    """Return the port to try first: in a Slurm job one from the job's number, else any free one.

    Two jobs on one machine then do not collide.
    """
    job = environment.get("SLURM_JOB_ID", "")
    return _FIRST_PORT + int(job) % _PORTS if job.isdigit() else _ANY_PORT


def open_store(address: str, limit: timedelta) -> TCPStore:
    """Open the store at which all ranks meet, on another port if the first one is taken.

    It listens on the interface of the job alone, and its `host` is the address of that. Where no
    interface is known it listens on all of them.
    """
    bound = LOOPBACK if address == LOOPBACK else None
    if bound is None and (interface := interface_of_job()) is not None:
        bound = interface.address
    host = bound or address
    try:
        return open_bound_store(host, master_port(), limit, listen_at=bound)
    except (OSError, torch.distributed.DistNetworkError):
        return open_bound_store(host, _ANY_PORT, limit, listen_at=bound)
