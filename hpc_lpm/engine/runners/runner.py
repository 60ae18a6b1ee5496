"""What a strategy must be able to do to be trained, measured and compared."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from hpc_lpm.data.dataset import Dataset
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.stop_agreement import StopAgreement
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.models.compute_format import ComputeFormat
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
    agreement: StopAgreement
    updates: int
    epochs: int
    replicas: int = 1
    resources: ExitStack = field(default_factory=ExitStack)

    @property
    def compute_format(self) -> ComputeFormat:
        """Precision and memory format of all layers."""
        return ComputeFormat(self.settings.precision, self.settings.memory_format)

    @property
    def micro_batch_size(self) -> int:
        """Samples of one micro-batch of one replica."""
        return self.settings.micro_batch_size // self.replicas

    @property
    def topology(self) -> PipelineTopology:
        """This rank's place among the plan's stages and their replicas."""
        stages = len(self.required_plan().stages)
        return PipelineTopology(self.job.rank, stages, self.replicas)

    @property
    def cuts(self) -> list[int]:
        """The K+1 cut positions, [0, L] without a plan."""
        return list(self.plan.cuts) if self.plan else [0, len(self.model.layers)]

    @property
    def copies(self) -> int:
        """The ranks that hold the same layers: replicas of a stage or of the whole model."""
        return self.job.size // (len(self.cuts) - 1)

    def build_layers(self) -> dict[int, nn.Module]:
        """Build the layers that this rank holds, by their index in the model, on its device.

        With a plan they are those of its stage, else all. Their weights depend on the seed alone.
        """
        cuts, stage = self.cuts, self.topology.stage if self.plan else 0
        return {
            index: self.model.build_layer(index, self.settings.seed).to(self.device)
            for index in range(cuts[stage], cuts[stage + 1])
        }

    def required_plan(self) -> Plan:
        """Return the plan of a strategy that cannot run without one."""
        if self.plan is None:
            raise RuntimeError(f"{self.settings.strategy} was started without a plan")
        return self.plan


@dataclass(frozen=True)
class TrainedState:
    """What a rank goes on from at a drain, beside what its settings determine.

    `layers` by their index in the model are held by every one of `replicas` ranks alike, but for
    their buffers; the optimizer may leave parameters to another rank that they are copies of.
    """

    layers: dict[int, nn.Module]
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    replica: int = 0


class Runner(Protocol):
    """One rank's part of a training."""

    def train(self, batches: MicroBatches) -> None:
        """Train on these micro-batches and drain, telling the recorder what happens when.

        Asks the agreement where to stop before each optimizer step.
        """

    def evaluate(self, batches: MicroBatches) -> int:
        """Return how many predictions this rank found right; the ranks' sum is the total."""

    def state(self) -> TrainedState:
        """Return what this rank answers for; what is put into it is what training goes on from."""

    def bytes_sent(self) -> int:
        """Return the bytes that this rank sent while training."""
