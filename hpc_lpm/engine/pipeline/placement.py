"""Where the ranks of a job are: on how many hosts, and on which devices."""

import socket
from collections import Counter
from dataclasses import dataclass

import torch

from hpc_lpm.engine.job import Job


@dataclass(frozen=True)
class Placement:
    """The number of hosts, and whether every rank computes on a GPU that no other rank uses."""

    hosts: int
    own_gpus: bool


def find_placement(job: Job, device: torch.device) -> Placement:
    """Ask all ranks where they are (collective)."""
    places = job.all_gather((socket.gethostname(), _gpu(device)))
    ranks_by_gpu = Counter(places)
    return Placement(
        hosts=len({host for host, _ in places}),
        own_gpus=all(gpu and ranks_by_gpu[host, gpu] == 1 for host, gpu in places),
    )


def _gpu(device: torch.device) -> str:
    """Return what names the GPU on its host: its number depends on what the rank may see."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
