"""Where the ranks are: which stage and replica each one holds, on which host and device it runs."""

import socket
from collections import Counter
from dataclasses import dataclass

import torch

from hpc_lpm.engine.job import Job


@dataclass(frozen=True)
class PipelineTopology:
    """The place of one rank among K stages with R replicas each: rank = stage * R + replica.

    This is the order of DeepSpeed's PipeDataParallelTopology, which its PipelineModule builds from
    the number of stages and of ranks: the replicas of a stage are neighbouring ranks.
    """

    rank: int
    stages: int
    replicas: int

    @property
    def stage(self) -> int:
        """The stage that this rank holds, from 0."""
        return self.rank // self.replicas

    @property
    def replica(self) -> int:
        """The replica of the stage that this rank is, from 0."""
        return self.rank % self.replicas

    def rank_of(self, stage: int) -> int:
        """The rank that holds a stage in the same replica."""
        return stage * self.replicas + self.replica

    @property
    def previous_rank(self) -> int:
        """The rank that holds the stage before, in the same replica; below 0 before the first."""
        return self.rank - self.replicas

    @property
    def next_rank(self) -> int:
        """The rank that holds the stage after, in the same replica; too large after the last."""
        return self.rank + self.replicas


@dataclass(frozen=True)
class RankLocations:
    """How many hosts the ranks are on, and whether each rank has a GPU that no other rank uses."""

    hosts: int
    own_gpus: bool


def find_rank_locations(job: Job, device: torch.device) -> RankLocations:
    """Find out where the ranks are by asking all of them (collective)."""
    places = job.all_gather((socket.gethostname(), _gpu(device)))
    ranks_by_gpu = Counter(places)
    return RankLocations(
        hosts=len({host for host, _ in places}),
        own_gpus=all(gpu and ranks_by_gpu[host, gpu] == 1 for host, gpu in places),
    )


def _gpu(device: torch.device) -> str:
    """Return what identifies the GPU on its host; its number depends on what the rank may see."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
