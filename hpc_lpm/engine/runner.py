"""What a strategy must be able to do to be trained, measured and compared."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.planning.plan import Plan


@dataclass(frozen=True)
class RunContext:
    """Everything that a strategy is given.

    `updates` and `epochs` are those of the whole run, an epoch that is cut short included;
    `replicas` counts the copies of every stage; `resources` are released at the end of the run.
    """

    settings: TrainSettings
    job: Job
    device: torch.device
    model: LayeredModel
    dataset: Dataset
    plan: Plan | None
    recorder: Recorder
    updates: int
    epochs: int
    replicas: int = 1
    resources: ExitStack = field(default_factory=ExitStack)

    @property
    def micro_batch_size(self) -> int:
        """Samples of one micro-batch of one replica."""
        return self.settings.micro_batch_size // self.replicas

    @property
    def topology(self) -> PipelineTopology:
        """This rank's place among the plan's stages and their replicas."""
        stages = len(self.required_plan().stages)
        return PipelineTopology(self.job.rank, stages, self.replicas)

    def required_plan(self) -> Plan:
        """Return the plan of a strategy that cannot run without one."""
        if self.plan is None:
            raise RuntimeError(f"{self.settings.strategy} was started without a plan")
        return self.plan


class Runner(Protocol):
    """One rank's part of a training."""

    def train(self, batches: MicroBatches) -> None:
        """Train on these micro-batches and drain, telling the recorder what happens when."""

    def evaluate(self, batches: MicroBatches) -> int:
        """Return how many predictions this rank found right; the ranks' sum is the total."""

    def layers(self) -> dict[int, nn.Module]:
        """Return the layers whose weights this rank answers for, by their index in the model."""

    def bytes_sent(self) -> int:
        """Return the bytes that this rank sent while training."""
