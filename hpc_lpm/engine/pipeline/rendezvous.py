"""Where the ranks of a job meet: MASTER_ADDR and MASTER_PORT."""

import os
import socket
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed
from torch._C._distributed_c10d import TCPStore

from hpc_lpm.host_names import host_names

LOOPBACK = "127.0.0.1"

_FIRST_PORT, _PORTS = 20_000, 12_000
"""Below the ports that Linux gives to outgoing connections (32768 and above)."""
_ANY_PORT = 0


def master_address(hosts: int, environment: Mapping[str, str] = os.environ) -> str:
    """Return the name by which the other ranks find rank 0, which calls this.

    On one host it is the loopback, since a host's own name need not resolve on a laptop or in a
    container. In a Slurm job it is the first node of the job, where rank 0 is; otherwise, or where
    that name does not lead here, the name of this host.
    """
    if hosts == 1:
        return LOOPBACK
    own = socket.gethostname()
    node_list = environment.get("SLURM_JOB_NODELIST")
    first = host_names(node_list)[0] if node_list else own
    return first if first.partition(".")[0] == own.partition(".")[0] else own


def master_port(environment: Mapping[str, str] = os.environ) -> int:
    """Return the port to try first: one of a Slurm job's own, outside of one any that is free."""
    job = environment.get("SLURM_JOB_ID", "")
    return _FIRST_PORT + int(job) % _PORTS if job.isdigit() else _ANY_PORT


def open_store(address: str, limit: timedelta) -> TCPStore:
    """Return the store that rank 0 keeps for all; another run of the job may have the port."""
    try:
        return _store(address, master_port(), limit)
    except torch.distributed.DistNetworkError:
        return _store(address, _ANY_PORT, limit)


def _store(address: str, port: int, limit: timedelta) -> TCPStore:
    return TCPStore(address, port, is_master=True, wait_for_workers=False, timeout=limit)
