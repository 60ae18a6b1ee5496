"""The interface between the training loop and the runner of a strategy."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.collectives import run_on_every_rank
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.loading import Loading, LoadingInTurn
from hpc_lpm.engine.parameter_groups import ALL_ALIKE, GroupedParameters
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.engine.updating import Updating
from hpc_lpm.errors import InputError
from hpc_lpm.models.compute_format import ComputeFormat
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.initial_weights import load_initial_weights
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.planning.model_checks import other_layer
from hpc_lpm.planning.plan import Plan
from hpc_lpm.schedules.placement import Placement

Value = TypeVar("Value")


@dataclass(frozen=True)
class RunContext:
    """Everything that a strategy is given to start its runner.

    `updates` and `epochs` count those of the whole run, including an epoch that is cut short, and
    `steps_an_epoch` the updates of a whole epoch, 1 where nobody counts epochs;
    `replicas` counts the replicas of every stage, and `placement` says which device holds which
    stages, the whole model without a plan; `resources` are released at the end of the run;
    `updating` makes what updates the weights; `loading` loads the micro-batches of this rank.
    """

    settings: TrainSettings
    job: Job
    device: torch.device
    model: LayeredModel
    plan: Plan | None
    recorder: Recorder
    updating: Updating
    updates: int
    epochs: int
    replicas: int = 1
    placement: Placement = field(default_factory=lambda: Placement.in_a_loop(1))
    resources: ExitStack = field(default_factory=ExitStack)
    loading: Loading = field(default_factory=LoadingInTurn)
    steps_an_epoch: int = 1

    @property
    def compute_format(self) -> ComputeFormat:
        """Precision and memory format of all layers."""
        return ComputeFormat(self.settings.precision, self.settings.memory_format)

    @property
    def micro_batch_size(self) -> int:
        """Samples per micro-batch of one replica."""
        return self.settings.micro_batch_size // self.replicas

    @property
    def topology(self) -> PipelineTopology:
        """This rank's place among the plan's stages and their replicas."""
        self.required_plan()
        return PipelineTopology(self.job.rank, self.placement, self.replicas)

    @property
    def cuts(self) -> list[int]:
        """The K+1 cut positions, [0, L] without a plan."""
        return list(self.plan.cuts) if self.plan else [0, len(self.model.layers)]

    @property
    def copies(self) -> int:
        """The number of ranks that hold the same layers: replicas of a stage or of the model."""
        return self.job.size // self.placement.devices

    def layers_of(self, stage: int) -> range:
        """Return the indices of a stage's layers, of all layers without a plan."""
        return range(self.cuts[stage], self.cuts[stage + 1])

    def build_layers(self) -> dict[int, nn.Module]:
        """Build the layers that this rank holds, by their index in the model, on its device.

        With a plan it holds those of its stages, without one all layers. Their initial weights
        depend on the seed alone, or come from the file of `--init-from`. Where the model was built
        whole, the weights of all other layers are freed.

        Every rank must call this, because the ranks tell each other what they find.

        Raises:
            InputError: on every rank alike, if a layer cannot be built, if the plan was made for
                layers with other parameters or buffers, or if the file does not hold this model's
                weights.
        """
        layers: dict[int, nn.Module] = {}
        run_on_every_rank(
            self.job, lambda: self._build_into(layers), (InputError,), _as_input_error
        )
        # Only now: ranks that one process plays build their layers of the same model.
        self.model.release()
        return layers

    def _build_into(self, layers: dict[int, nn.Module]) -> None:
        held = [place.stage for place in self.topology.places] if self.plan else [0]
        for index in chain.from_iterable(map(self.layers_of, held)):
            layers[index] = self.model.build_layer(index, self.settings.seed).to(self.device)
        if self.plan:
            remedy = None
            if self.settings.plan:
                remedy = self.settings.remaking_commands(self.placement.devices)
            found = other_layer(self.plan, self.settings.plan, layers, self.model, remedy)
            if found is not None:
                raise InputError(found)
        if self.settings.init_from is not None:
            load_initial_weights(self.settings.init_from, self.model, layers)

    def gather_from_stages(self, values: list[Value]) -> list[Value]:
        """Return the values of all stages of this rank's replica, in order (collective).

        `values` has one for each stage that this rank holds.
        """
        topology = self.topology
        by_device = self.job.all_gather(values)[topology.replica :: topology.replicas]
        placement = self.placement
        return [
            by_device[placement.device(stage)][placement.chunk(stage)]
            for stage in range(placement.stages)
        ]

    def required_plan(self) -> Plan:
        """Return the plan of a strategy that cannot run without one.

        Raises:
            RuntimeError: if there is none, which is a defect of the toolkit.
        """
        if self.plan is None:
            raise RuntimeError(f"{self.settings.strategy} was started without a plan")
        return self.plan


def _as_input_error(problem: str, rank: str) -> InputError:
    return InputError(f"{problem}.")


class KeptTensors(Protocol):
    """What a rank keeps of its parameters beside the optimizer's state."""

    def saved(self) -> Mapping[nn.Parameter, Mapping[str, Tensor]]:
        """Return the tensors by parameter and name."""

    def restore(self, saved: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
        """Restore what `saved` returned."""


@dataclass(frozen=True)
class TrainedState:
    """The state of a rank at a drain, which together with its settings determines what follows.

    `layers` are keyed by their index in the model; replicas hold the same parameters, but buffers
    of their own. The optimizer leaves out parameters that are copies of another layer's tied
    weights. `replica` counts from 0. `groups` are those of its parameters. `kept` is what else the
    rank keeps of parameters, such as their last updates. What reads or changes parameters, or what
    the optimizer remembers of them, does so within `whole()`, in which a rank that holds shards
    holds all of both (collective).
    """

    layers: dict[int, nn.Module]
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    replica: int = 0
    groups: GroupedParameters = ALL_ALIKE
    kept: KeptTensors | None = None
    whole: Callable[[], AbstractContextManager[None]] = nullcontext


class Runner(Protocol):
    """Trains and evaluates one rank's part of a run."""

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Run passes that leave no trace, to learn what such micro-batches need (collective).

        Every size of a micro-batch is rehearsed before it is trained on or evaluated.
        """

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on the micro-batches of one optimizer step, recording when each instruction ran.

        Something of it may stay undone until `following`, the batch of the next call, is trained;
        without one, nothing is in flight at the end.
        """

    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return loss and metrics of the micro-batches whose outputs this rank computes."""

    def state(self) -> TrainedState:
        """Return this rank's state, which checkpoints are saved from and restored into."""

    def bytes_sent(self) -> int:
        """Return the number of bytes that this rank has sent while training."""
