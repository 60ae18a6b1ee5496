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
from hpc_lpm.engine.pipeline.held_stage import HeldStage, held_stages
from hpc_lpm.engine.pipeline.process_group import (
    join_process_group,
    noticing_silence,
    require_own_gpus,
)
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal, StageRehearsal
from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.records import INPUT_GRADIENT, WEIGHT_GRADIENT
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.carrier import fill_missing_gradient
from hpc_lpm.engine.runners.crossing import Crossing, Enter, Leave
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.layer_calls import LayerCalls

_ENGINE = "PyTorch's pipeline"


class TorchPipelineRunner:
    """The stages of one rank on PyTorch's pipeline, with its schedule and its transport.

    PyTorch hands out numbers of micro-batches instead of samples: each stage loads what it needs of
    them itself, in the order of the data. What crosses a boundary is carried in one tensor, layers
    draw the random numbers of their micro-batch, and what has no gradient is given none.

    Args:
        context: of the run.
        schedule: the name of the schedule's class.
        splits_backward: whether the schedule runs the halves of backward passes apart.
    """

    def __init__(self, context: RunContext, schedule: str, *, splits_backward: bool) -> None:
        settings, job = context.settings, context.job
        join_process_group(job, context.device)
        require_own_gpus(job, context.device, settings.strategy)
        self._context = context
        self._schedule_name, self._splits = schedule, splits_backward
        layers = context.build_layers()
        calls = LayerCalls(layers, settings.seed, context.device)
        self._module = StageModule(layers, context.compute_format, calls)
        self._updates = context.updating.build(list(self._module.parameters()), layers)
        self._module.arrange()
        self._held = held_stages(context, self._module)
        self._rules = GradientRules(
            [list(nn.ModuleList(stage.layers.values()).parameters()) for stage in self._held],
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
        self._rehearsal = PipelineRehearsal(self._module, self._held, context)
        self._crossings = [
            Crossing(
                rehearsed.boundaries,
                context.device,
                max(rehearsed.stage.layers),
                _ENGINE,
                shows_graph=splits_backward,
            )
            for rehearsed in self._rehearsal.stages
        ]
        self._stages: list[_Stage] = []
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
        for crossing in self._crossings:
            crossing.require_unvarying(self._context)

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on a batch; the schedule drains after every step."""
        recorder, count = self._context.recorder, len(batch)
        if not self._stages:
            self._make_stages(batch.size(0))
        self._module.train()
        for stage in self._stages:
            stage.begin(batch)
        numbers = torch.arange(count)
        given = (numbers,) if self._held[0].place.is_first else ()
        of_loss = {"target": numbers} if self._stages[-1].is_last else {}
        with self._waiting():
            with self._described():
                self._schedule.step(*given, **of_loss, return_outputs=False)
            self._tell_loss()
        self._bytes_sent += count * sum(stage.bytes_a_micro_batch for stage in self._stages)
        self._update()
        recorder.end_step()

    @contextmanager
    def _described(self) -> Iterator[None]:
        """Name the micro-batch and the layer that are to blame for what fails in a step."""
        try:
            yield
        except Exception as error:
            failed = next((stage for stage in self._stages if stage.failure), None)
            # PyTorch wraps what a stage raises.
            raised = error if failed is None or failed.failure is None else failed.failure
            entered = None if failed is None else failed.entered
            inputs = entered if isinstance(raised, NonFiniteLossError) else None
            named = f"micro-batch {failed.number}" if failed else "step"
            raise self._faults.describe(raised, named, inputs) from error

    def _waiting(self) -> AbstractContextManager[None]:
        job, step = self._context.job, self._context.recorder.step
        where = f"stage {self._context.topology.stage} (rank {job.rank}), step {step}"
        return noticing_silence(where, "word from another stage", job.limit_seconds)

    def _make_stages(self, samples: int) -> None:
        """Build the stages and the schedule for micro-batches of so many samples."""
        made = [
            self._make_stage(rehearsed, crossing, samples)
            for rehearsed, crossing in zip(self._rehearsal.stages, self._crossings, strict=True)
        ]
        self._stages = [module for module, _ in made]
        stages = [stage for _, stage in made]
        kind = getattr(pipelining, self._schedule_name)
        several = issubclass(kind, pipelining.schedules.PipelineScheduleMulti)
        self._schedule = kind(
            stages if several else stages[0],
            n_microbatches=self._context.settings.micro_batches,
            loss_fn=lambda loss, number: loss,
            # Losses are divided before their backward passes, as on one device.
            scale_grads=False,
        )

    def _make_stage(
        self, rehearsed: StageRehearsal, crossing: Crossing, samples: int
    ) -> "tuple[_Stage, Any]":
        context, place = self._context, rehearsed.stage.place
        module = _Stage(
            context,
            rehearsed.stage,
            crossing.enter(training=True, samples=samples),
            crossing.leave(training=True, samples=samples),
            copies_inputs=rehearsed.changes_inputs,
            shows_graph=self._splits,
        )
        boundaries = rehearsed.boundaries
        arrives, leaves = (
            crossing.carried(boundary, training=True, samples=samples)
            for boundary in (boundaries.incoming, boundaries.outgoing)
        )
        stage: Any = pipelining.PipelineStage(
            module,
            place.stage,
            context.topology.stages,
            context.device,
            input_args=torch.zeros(1, dtype=torch.int64) if arrives is None else arrives,
            output_args=torch.zeros((), requires_grad=True) if leaves is None else leaves,
        )
        sent = [(arrives, place.previous_rank), (leaves, place.next_rank)]
        module.bytes_a_micro_batch = sum(
            carrier.nbytes
            for carrier, rank in sent
            if carrier is not None and rank != context.job.rank
        )
        _time_backward(stage, module, splits=self._splits)
        return module, stage

    def _tell_loss(self) -> None:
        """Tell all ranks the mean loss of the step, which the last stage knows."""
        recorder, topology = self._context.recorder, self._context.topology
        loss = torch.zeros(1, dtype=torch.float64, device=self._context.device)
        if self._stages[-1].is_last:
            loss = recorder.step_loss()
        start = recorder.start()
        last = topology.placement.device(topology.stages - 1)
        torch.distributed.broadcast(loss, src=last)
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
        """Run one micro-batch through the stages; send what leaves them, or score it at the end."""
        context, samples = self._context, batches.size(n)
        form, own = context.compute_format, context.job.rank
        scores = []
        handed_over: Tensor | None = None
        for rehearsed, crossing in zip(self._rehearsal.stages, self._crossings, strict=True):
            place, calls = rehearsed.stage.place, rehearsed.stage.calls
            calls.number, calls.training = batches.number(n), False
            if place.previous_rank != own:
                handed_over = None
            inputs = self._received(rehearsed, crossing, batches, n, handed_over)
            with form.autocast(context.device):
                outputs = calls.run(inputs)
            leave = crossing.leave(training=False, samples=samples)
            if leave is None:
                targets = moved(context.loading.targets(batches, n), context.device)
                scores.append(score(context.model, calls, form, outputs, targets, samples, metrics))
                continue
            handed_over = leave(outputs).detach()
            if place.next_rank != own:
                torch.distributed.send(handed_over, place.next_rank)
        return scores

    def _received(
        self,
        rehearsed: StageRehearsal,
        crossing: Crossing,
        batches: MicroBatches,
        n: int,
        handed_over: Tensor | None,
    ) -> Activation:
        """Return the inputs of a stage's layers in an evaluation."""
        context, samples = self._context, batches.size(n)
        boundary = rehearsed.boundaries.incoming
        carrier = crossing.carried(boundary, training=False, samples=samples)
        enter = crossing.enter(training=False, samples=samples)
        if carrier is None or enter is None:
            loaded = moved(context.loading.inputs(batches, n), context.device)
            return context.compute_format.arranged(loaded)
        if handed_over is None:
            torch.distributed.recv(carrier, rehearsed.stage.place.previous_rank)
            return enter(carrier)
        return enter(handed_over)

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of this stage."""
        updates = self._updates
        layers = self._module.local_layers()
        return TrainedState(layers, updates.optimizer, updates.scheduler, groups=updates.groups)

    def bytes_sent(self) -> int:
        """Return the bytes sent to other ranks while training."""
        return self._bytes_sent


class _Stage(nn.Module):
    """The module that PyTorch runs: a stage's layers, and on the last stage the loss.

    Micro-batches pass in order, so a count tells which one is next. A schedule that splits backward
    passes must see the graph of the layers; from others it is hidden.

    Attributes:
        number: of the micro-batch that was run last, over the whole run.
        entered: what its layers were given.
        failure: what running it has raised.
    """

    def __init__(
        self,
        context: RunContext,
        held: HeldStage,
        enter: Enter | None,
        leave: Leave | None,
        *,
        copies_inputs: bool,
        shows_graph: bool,
    ) -> None:
        super().__init__()
        self._context = context
        self._calls = held.calls
        self.layers = nn.ModuleList(held.layers.values())
        self._shows_graph = shows_graph
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
        context, calls = self._context, self._calls
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
        if self._shows_graph:
            # PyTorch detaches it in place, which a view does not allow.
            return passed.clone()
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


def _time_backward(stage: Any, module: _Stage, *, splits: bool) -> None:
    """Record the backward passes that PyTorch runs on a stage, and their halves."""
    recorder = module._context.recorder

    def timed(run: Callable[..., None], kind_of: Callable[..., str]) -> Callable[..., None]:
        def run_timed(*arguments: Any, **options: Any) -> None:
            start = recorder.start()
            run(*arguments, **options)
            kind = kind_of(**options)
            number = module._batch.number(arguments[0] if splits else module.backwards)
            recorder.add(kind, number, start)
            module.backwards += kind != INPUT_GRADIENT

        return run_timed

    def kind_of_backward(*, full_backward: bool = True, **_: object) -> str:
        return "backward" if full_backward else INPUT_GRADIENT

    stage.backward_one_chunk = timed(stage.backward_one_chunk, kind_of_backward)
    stage.backward_weight_one_chunk = timed(
        stage.backward_weight_one_chunk, lambda **_: WEIGHT_GRADIENT
    )
