"""Where ranks are: which stages and replica each one holds, on which host and device it runs."""

import socket
from collections import Counter
from dataclasses import dataclass

import torch

from hpc_lpm.engine.job import Job
from hpc_lpm.schedules.placement import Placement


@dataclass(frozen=True)
class StagePlace:
    """The place of a stage in the pipeline: its number, and the ranks of its neighbours.

    `chunk` counts the stages of this rank. `previous_rank` and `next_rank` hold the stages before
    and after in the same replica; None at the ends of the pipeline.
    """

    stage: int
    chunk: int
    previous_rank: int | None
    next_rank: int | None

    @property
    def is_first(self) -> bool:
        """Whether the model begins here."""
        return self.previous_rank is None

    @property
    def is_last(self) -> bool:
        """Whether the model ends here, in the loss."""
        return self.next_rank is None


@dataclass(frozen=True)
class PipelineTopology:
    """The place of one rank among D devices with R replicas each: rank = device * R + replica.

    This is the order of DeepSpeed's PipeDataParallelTopology, which its PipelineModule builds from
    the number of stages and of ranks: the replicas of a stage are neighbouring ranks. A device
    holds one stage, or several where a schedule has chunks.
    """

    rank: int
    placement: Placement
    replicas: int

    @property
    def devices(self) -> int:
        """How many devices each replica has."""
        return self.placement.devices

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return self.placement.stages

    @property
    def device(self) -> int:
        """The device that this rank is, from 0."""
        return self.rank // self.replicas

    @property
    def stage(self) -> int:
        """The first stage that this rank holds, from 0."""
        return self.placement.stage(self.device)

    @property
    def replica(self) -> int:
        """The replica of its stages that this rank is, from 0."""
        return self.rank % self.replicas

    def rank_of(self, device: int) -> int:
        """Return the rank that is a device in the same replica."""
        return device * self.replicas + self.replica

    @property
    def places(self) -> list[StagePlace]:
        """The places of the stages that this rank holds, in order."""
        return [
            StagePlace(stage, chunk, self._holder(stage - 1), self._holder(stage + 1))
            for chunk, stage in enumerate(self.placement.held[self.device])
        ]

    def _holder(self, stage: int) -> int | None:
        if not 0 <= stage < self.stages:
            return None
        return self.rank_of(self.placement.device(stage))


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
