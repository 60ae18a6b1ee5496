"""Runs a schedule of torch.distributed.pipelining with a plan's cuts, as one device would train."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import pipelining

from hpc_lpm.activation import Activation, moved
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores, score
from hpc_lpm.engine.faults import Faults, NonFiniteLossError
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.pipeline.held_stage import held_stages
from hpc_lpm.engine.pipeline.process_group import (
    join_process_group,
    noticing_silence,
    require_own_gpus,
)
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.carrier import fill_missing_gradient
from hpc_lpm.engine.runners.crossing import Crossing, Enter, Leave
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.layer_calls import LayerCalls

_ENGINE = "PyTorch's pipeline"


class TorchPipelineRunner:
    """One stage of PyTorch's pipeline, with its schedule and its transport.

    PyTorch hands out numbers of micro-batches instead of samples: each stage loads what it needs of
    them itself, in the order of the data. What crosses a boundary is carried in one tensor, layers
    draw the random numbers of their micro-batch, and what has no gradient is given none.
    """

    def __init__(self, context: RunContext, schedule: str) -> None:
        settings, job = context.settings, context.job
        join_process_group(job, context.device)
        require_own_gpus(job, context.device, settings.strategy)
        self._context = context
        self._schedule_name = schedule
        layers = context.build_layers()
        calls = LayerCalls(layers, settings.seed, context.device)
        self._module = StageModule(layers, context.compute_format, calls)
        self._updates = context.updating.build(list(self._module.parameters()), layers)
        self._module.arrange()
        self._rules = GradientRules(
            [list(self._module.parameters())],
            settings,
            context.recorder,
            context.gather_from_stages,
        )
        self._faults = Faults(
            context.model,
            layers,
            job.rank,
            stage=context.topology.stage,
            compute_format=context.compute_format,
        )
        stages = held_stages(context, self._module)
        self._rehearsal = PipelineRehearsal(self._module, stages, context)
        self._rehearsed = self._rehearsal.stages[0]
        self._crossing = Crossing(self._rehearsed.boundaries, context.device, max(layers), _ENGINE)
        self._stage: _Stage | None = None
        self._schedule: Any = None
        self._bytes_sent = 0

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Find out what crosses the boundaries of the stages in passes of these kinds.

        Raises:
            InputError: on every rank, if it varies.
        """
        self._rehearsal.rehearse(passes, metrics)
        self._crossing.require_unvarying(self._context)

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on a batch; the schedule drains after every step."""
        recorder, topology = self._context.recorder, self._context.topology
        if self._stage is None:
            self._stage = self._make_stage(batch.size(0))
        stage, count = self._stage, len(batch)
        self._module.train()
        stage.begin(batch)
        numbers = torch.arange(count)
        given = (numbers,) if topology.stage == 0 else ()
        of_loss = {"target": numbers} if stage.is_last else {}
        with self._waiting():
            with self._described():
                self._schedule.step(*given, **of_loss, return_outputs=False)
            self._tell_loss(stage)
        self._bytes_sent += count * stage.bytes_a_micro_batch
        self._update()
        recorder.end_step()

    @contextmanager
    def _described(self) -> Iterator[None]:
        """Name the micro-batch and the layer that are to blame for what fails in a step."""
        stage = self._stage
        assert stage is not None
        try:
            yield
        except Exception as error:
            # PyTorch wraps what a stage raises.
            raised = stage.failure or error
            inputs = stage.entered if isinstance(raised, NonFiniteLossError) else None
            named = f"micro-batch {stage.number}" if stage.failure else "step"
            raise self._faults.describe(raised, named, inputs) from error

    def _waiting(self) -> AbstractContextManager[None]:
        job, step = self._context.job, self._context.recorder.step
        where = f"stage {self._context.topology.stage} (rank {job.rank}), step {step}"
        return noticing_silence(where, "word from another stage", job.limit_seconds)

    def _make_stage(self, samples: int) -> "_Stage":
        """Build the stage and the schedule for micro-batches of so many samples."""
        context, topology = self._context, self._context.topology
        module = _Stage(
            context,
            self._module,
            self._crossing.enter(training=True, samples=samples),
            self._crossing.leave(training=True, samples=samples),
            copies_inputs=self._rehearsed.changes_inputs,
        )
        boundaries = self._rehearsed.boundaries
        arrives, leaves = (
            self._crossing.carried(boundary, training=True, samples=samples)
            for boundary in (boundaries.incoming, boundaries.outgoing)
        )
        stage: Any = pipelining.PipelineStage(
            module,
            topology.stage,
            topology.stages,
            context.device,
            input_args=torch.zeros(1, dtype=torch.int64) if arrives is None else arrives,
            output_args=torch.zeros((), requires_grad=True) if leaves is None else leaves,
        )
        module.bytes_a_micro_batch = sum(
            carrier.nbytes for carrier in (arrives, leaves) if carrier is not None
        )
        _time_backward(stage, module)
        self._schedule = getattr(pipelining, self._schedule_name)(
            stage,
            n_microbatches=context.settings.micro_batches,
            loss_fn=lambda loss, number: loss,
            # Losses are divided before their backward passes, as on one device.
            scale_grads=False,
        )
        return module

    def _tell_loss(self, stage: "_Stage") -> None:
        """Tell all ranks the mean loss of the step, which the last stage knows."""
        recorder, topology = self._context.recorder, self._context.topology
        loss = torch.zeros(1, dtype=torch.float64, device=self._context.device)
        if stage.is_last:
            loss = recorder.step_loss()
        start = recorder.start()
        torch.distributed.broadcast(loss, src=topology.stages - 1)
        recorder.add("receive", recorder.step, start)
        recorder.hear_loss(loss)

    def _update(self) -> None:
        recorder, updates = self._context.recorder, self._updates
        start = recorder.start()
        admitted = self._rules.apply()
        if self._rules.waits:
            recorder.add("receive", recorder.step, start)
            start = recorder.start()
        if admitted:
            updates.optimizer.step()
            updates.scheduler.step()
        else:
            advance(updates.scheduler, 1)
        updates.optimizer.zero_grad()
        recorder.add("update", recorder.step, start)

    @torch.no_grad()
    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores of all micro-batches on the last stage, none on others."""
        self._module.eval()
        scores: list[MicroBatchScores] = []
        for n in range(len(batches)):
            with self._waiting():
                try:
                    scores += self._evaluate(batches, n, metrics)
                except Exception as error:
                    named = f"evaluation micro-batch {batches.number(n)}"
                    raise self._faults.describe(error, named) from error
        return scores

    def _evaluate(
        self, batches: MicroBatches, n: int, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Run one micro-batch and send what leaves the stage, or score it on the last one."""
        context, calls, samples = self._context, self._module.calls, batches.size(n)
        form = context.compute_format
        calls.number, calls.training = batches.number(n), False
        inputs = self._received(batches, n)
        with form.autocast(context.device):
            outputs = calls.run(inputs)
        leave = self._crossing.leave(training=False, samples=samples)
        if leave is not None:
            torch.distributed.send(leave(outputs).detach(), context.topology.stage + 1)
            return []
        targets = moved(context.loading.targets(batches, n), context.device)
        return [score(context.model, calls, form, outputs, targets, samples, metrics)]

    def _received(self, batches: MicroBatches, n: int) -> Activation:
        """Return the inputs of the stage's layers in an evaluation."""
        context, samples = self._context, batches.size(n)
        boundary = self._rehearsed.boundaries.incoming
        carrier = self._crossing.carried(boundary, training=False, samples=samples)
        enter = self._crossing.enter(training=False, samples=samples)
        if carrier is None or enter is None:
            loaded = moved(context.loading.inputs(batches, n), context.device)
            return context.compute_format.arranged(loaded)
        torch.distributed.recv(carrier, context.topology.stage - 1)
        return enter(carrier)

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of this stage."""
        updates = self._updates
        layers = self._module.local_layers()
        return TrainedState(layers, updates.optimizer, updates.scheduler, groups=updates.groups)

    def bytes_sent(self) -> int:
        """Return the bytes sent to neighbouring stages while training."""
        return self._bytes_sent


class _Stage(nn.Module):
    """The module that PyTorch runs: a stage's layers, and on the last stage the loss.

    Micro-batches pass in order, so a count tells which one is next.

    Attributes:
        number: of the micro-batch that was run last, over the whole run.
        entered: what its layers were given.
        failure: what running it has raised.
    """

    def __init__(
        self,
        context: RunContext,
        layers: StageModule,
        enter: Enter | None,
        leave: Leave | None,
        *,
        copies_inputs: bool,
    ) -> None:
        super().__init__()
        self._context = context
        self.layers = layers
        self._enter = enter
        self._leave = leave
        self._copies_inputs = copies_inputs
        self._loss = context.compute_format.loss(context.model.loss)
        self._handle = torch.zeros((), device=context.device, requires_grad=True)
        self.is_last = leave is None
        self.bytes_a_micro_batch = 0
        self.number = 0
        self.entered: Activation | None = None
        self.failure: Exception | None = None

    def begin(self, batch: MicroBatches) -> None:
        """Run the micro-batches of this batch next."""
        self._batch = batch
        self.forwards = self.backwards = 0

    def forward(self, given: Tensor) -> Tensor:
        """Run the next micro-batch; return the carrier that leaves the stage, or the loss."""
        n = self.forwards
        self.number = self._batch.number(n)
        try:
            passed = self._passed(given, n)
        except Exception as error:
            self.failure = error
            raise
        self.forwards += 1
        self._context.recorder.add_in_flight(self.forwards - self.backwards)
        return passed

    def _passed(self, given: Tensor, n: int) -> Tensor:
        context, calls = self._context, self.layers.calls
        recorder, loading = context.recorder, context.loading
        start = recorder.start()
        targets: Activation | None = None
        if self._enter is None:
            loaded = moved(loading.inputs(self._batch, n), context.device)
            self.entered = context.compute_format.arranged(loaded)
        else:
            # A leaf that requires a gradient cannot be changed in place.
            self.entered = self._enter(given.clone() if self._copies_inputs else given)
        if self.is_last:
            targets = moved(loading.targets(self._batch, n), context.device)
        recorder.add("load", self.number, start)
        start = recorder.start()
        calls.number, calls.training = self.number, True
        with context.compute_format.autocast(context.device):
            outputs = calls.run(self.entered)
        passed = self._leave(outputs) if self._leave else calls.loss(self._loss, outputs, targets)
        recorder.add("forward", self.number, start)
        if self.is_last:
            recorder.add_loss(passed, self._batch.size(n))
            passed = passed / self._batch.loss_divisor(n)
        incoming = None if self._enter is None else given
        hidden = _Passed(passed, incoming)
        complete: Tensor = _Complete.apply(self._handle, hidden)  # type: ignore[no-untyped-call]
        return complete


@dataclass(frozen=True)
class _Passed:
    """What leaves a stage, with its history, and what has entered, hidden from autograd."""

    leaving: Tensor
    incoming: Tensor | None


class _Complete(torch.autograd.Function):
    """Hands on what leaves a stage; backwards, lets what has entered have a gradient in any case.

    PyTorch would send zeros where there is none, which weight decay and momentum then move.
    """

    @staticmethod
    def forward(ctx: Any, handle: Tensor, passed: _Passed) -> Tensor:
        ctx.passed = passed
        return passed.leaving.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        leaving, incoming = ctx.passed.leaving, ctx.passed.incoming
        if leaving.requires_grad:
            torch.autograd.backward(leaving, gradient)
        if incoming is not None:
            fill_missing_gradient(incoming)
        return None, None


def _time_backward(stage: Any, module: _Stage) -> None:
    """Record the backward passes that PyTorch runs on a stage."""
    run: Callable[..., None] = stage.backward_one_chunk
    recorder = module._context.recorder

    def timed(*arguments: object, **options: object) -> None:
        start = recorder.start()
        run(*arguments, **options)
        recorder.add("backward", module._batch.number(module.backwards), start)
        module.backwards += 1

    stage.backward_one_chunk = timed
