"""One toy of every kind that users can add, in a file of its own that knows only public things."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hpc_lpm.campaign.metrics import Metric
from hpc_lpm.data.dataset import Dataset, DataShape, Split
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores, score
from hpc_lpm.engine.learning_rate import build_scheduler
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, Runner, TrainedState
from hpc_lpm.engine.strategies.base import PlannedRun, Strategy
from hpc_lpm.errors import InputError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.layer_calls import LayerCalls
from hpc_lpm.options import CommandOption, StrategyOptions
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.schedules.base import Schedule

CLASSES = 3


def blobs(data_dir: object, samples: int = 96) -> Dataset:
    """Return points around three centres."""
    targets = torch.arange(samples) % CLASSES
    inputs = torch.randn(samples, 4) + targets[:, None]
    held_out = samples // 4
    train = Split(inputs[held_out:], targets[held_out:])
    return Dataset("blobs", DataShape("image", (4,), CLASSES), train, Split(inputs, targets))


def perceptron(shape: DataShape, width: int = 6) -> list[Any]:
    """Return the builders of five layers."""
    middle = partial(nn.Linear, width, width)
    return [partial(nn.Linear, 4, width), nn.Tanh, middle, nn.Tanh, partial(nn.Linear, width, 3)]


def first_layers(model: CostModel) -> tuple[int, ...]:
    """One layer in every stage but the last."""
    return (*range(model.stages), model.layers)


class Eager(Schedule):
    """Run two micro-batches ahead for every later stage, and flush after each step."""

    name = "eager"
    description = "two micro-batches ahead a stage, with a flush"
    flushes = True

    def ahead(self, stage: int, stages: int, micro_batches_per_step: int, lead: int) -> int:
        """Return by how much forwards are ahead."""
        return min(2 * (stages - 1 - stage), micro_batches_per_step - 1)


class RelayOptions(StrategyOptions):
    """How the messages of the relay are written."""

    pickle_protocol: Annotated[
        int,
        Field(ge=2, le=5, description="protocol of its pickled messages"),
        CommandOption("Relay", metavar="N"),
    ] = 4


class Relay(Strategy):
    """Stages that hand pickled tensors on over MPI, one micro-batch at a time."""

    description = "a pipeline of pickles"
    options = RelayOptions
    needs_plan = True
    pipelined = True

    def check(self, run: PlannedRun) -> None:
        """Refuse what it cannot do."""
        super().check(run)
        if run.replicas > 1:
            raise InputError(f"--strategy {self.name} has no replicas: start one rank a stage.")

    def start(self, context: RunContext) -> Runner:
        """Return this rank's stage."""
        return RelayRunner(context)


class RelayRunner:
    """One stage of the relay."""

    def __init__(self, context: RunContext) -> None:
        settings = context.settings
        self.context = context
        self.layers = context.build_layers()
        self.module = nn.Sequential(*self.layers.values())
        self.calls = LayerCalls(self.layers, settings.seed, context.device)
        self.optimizer = build_optimizer(self.module.parameters(), settings.optimizer)
        self.scheduler = build_scheduler(self.optimizer, settings.learning_rate, context.updates)
        self.stage = context.topology.stage
        self.is_last = self.stage == context.topology.stages - 1
        self.world: Any = context.job.communicator  # type: ignore[attr-defined]
        self.tag = context.job.own_tag()
        self.sent = 0

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Rehearse nothing: stages learn of shapes as they receive."""

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train, one micro-batch after the other."""
        self.module.train()
        for n in range(len(batch)):
            self.pass_on(batch, n)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.context.recorder.end_step()

    def pass_on(self, batches: MicroBatches, n: int) -> None:
        """Pass a micro-batch forward and its gradient back."""
        context, recorder = self.context, self.context.recorder
        start = recorder.start()
        inputs = self.inputs(batches, n)
        outputs = self.module(inputs.requires_grad_(self.stage > 0))
        if self.is_last:
            loss = context.model.loss(outputs, batches.targets(n))
            recorder.add_loss(loss, batches.size(n))
            (loss / batches.loss_divisor(n)).backward()
        else:
            self.send(outputs.detach(), self.stage + 1)
            outputs.backward(self.world.recv(source=self.stage + 1, tag=self.tag))
        if self.stage > 0:
            assert inputs.grad is not None
            self.send(inputs.grad, self.stage - 1)
        recorder.add("forward", n, start)

    def inputs(self, batches: MicroBatches, n: int) -> Tensor:
        """Return what enters this stage."""
        if self.stage == 0:
            return batches.inputs(n)
        received: Tensor = self.world.recv(source=self.stage - 1, tag=self.tag)
        return received

    def send(self, tensor: Tensor, rank: int) -> None:
        """Send a pickled tensor."""
        self.sent += tensor.numel() * tensor.element_size()
        self.world.send(tensor, dest=rank, tag=self.tag)

    @torch.no_grad()
    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores on the last stage."""
        self.module.eval()
        scores = []
        for n in range(len(batches)):
            outputs = self.module(self.inputs(batches, n))
            if self.is_last:
                context, targets = self.context, batches.targets(n)
                self.calls.number, self.calls.training = n, False
                form, size = context.compute_format, batches.size(n)
                scores.append(
                    score(context.model, self.calls, form, outputs, targets, size, metrics)
                )
            else:
                self.send(outputs, self.stage + 1)
        return scores

    def state(self) -> TrainedState:
        """Return this stage's layers."""
        return TrainedState(self.layers, self.optimizer, self.scheduler)

    def bytes_sent(self) -> int:
        """Return what this rank sent while training and evaluating."""
        return self.sent


STEPS_A_SECOND = Metric(
    "steps_a_second",
    "steps a second",
    of_run=lambda result: len(result.step_seconds) / sum(result.step_seconds),
)
