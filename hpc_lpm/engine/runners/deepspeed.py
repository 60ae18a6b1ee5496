"""Runs DeepSpeed's own 1F1B pipeline with a plan's cuts, so that it trains as one device would."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from hpc_lpm.activation import Activation, moved
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.evaluation import MicroBatchScores, score
from hpc_lpm.engine.faults import Faults, NonFiniteLossError
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.pipeline.engine import deepspeed_config
from hpc_lpm.engine.pipeline.equal_parameters import equal_on_replicas
from hpc_lpm.engine.pipeline.gradient_average import average_buffers
from hpc_lpm.engine.pipeline.held_stage import held_stages
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.process_group import (
    noticing_silence,
    require_own_gpus,
    start_deepspeed,
)
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.replica_sum import SumOverGroup
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.carrier import fill_missing_gradient
from hpc_lpm.engine.runners.crossing import Crossing
from hpc_lpm.engine.runners.deepspeed_gradients import mend_gradients
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.models.layer_calls import LayerCalls

_ENGINE = "DeepSpeed"
_KINDS = {
    "LoadMicroBatch": "load",
    "ForwardPass": "forward",
    "BackwardPass": "backward",
    "OptimizerStep": "update",
    "SendActivation": "send",
    "SendGrad": "send",
    "RecvActivation": "receive",
    "RecvGrad": "receive",
}


class StockPipelineRunner:
    """One stage of DeepSpeed's PipelineEngine, with its own schedule, transport and update.

    Around its instructions stands what it lacks to train the same function as one device: what
    crosses a boundary is carried in one tensor, layers draw the random numbers of their
    micro-batch, and what has no gradient is given none.
    """

    def __init__(self, context: RunContext) -> None:
        settings, job = context.settings, context.job
        start_deepspeed(job, context.device)
        from hpc_lpm.engine.pipeline.deepspeed_parts import deepspeed

        require_own_gpus(job, context.device, settings.strategy)
        self._context = context
        with making_process_groups(job):
            self._module = self._build_module()
        self._faults = Faults(
            context.model,
            self._module.local_layers(),
            job.rank,
            stage=context.topology.stage,
            compute_format=context.compute_format,
        )
        self._updates = context.updating.build(
            list(self._module.parameters()), self._module.local_layers()
        )
        with making_process_groups(job), equal_on_replicas(self._module):
            self._engine, *_ = deepspeed.initialize(
                model=self._module,
                optimizer=self._updates.optimizer,
                lr_scheduler=self._updates.scheduler,
                config=deepspeed_config(context),
            )
        self._rules = GradientRules(
            [list(self._module.parameters())],
            settings,
            context.recorder,
            context.gather_from_stages,
        )
        mend_gradients(self._engine, self._module, context.replicas)
        self._module.arrange()
        stages = held_stages(context, self._module)
        self._rehearsal = PipelineRehearsal(self._module, stages, context)
        self._crossing = Crossing(
            self._rehearsal.stages[0].boundaries,
            context.device,
            max(self._module.local_layers()),
            _ENGINE,
        )
        self._gradient_bytes = sum(p.numel() * p.element_size() for p in self._module.parameters())
        self._bytes_sent = 0
        self._scores: list[MicroBatchScores] = []
        self._metrics: Sequence[EvaluationMetric] = ()
        self._held_inputs: list[Activation] = []
        self._held_targets: list[Activation] = []
        self._done: Counter[str] = Counter()
        self._expected: tuple[bool, int] | None = None
        self._wrap_instructions()

    def _build_module(self) -> PlannedModule:
        context = self._context
        layers = context.build_layers()
        module = PlannedModule(
            layers,
            context.required_plan().cuts,
            self._loss_or_score,
            context.compute_format,
            LayerCalls(layers, context.settings.seed, context.device),
        )
        self._loss = context.compute_format.loss(context.model.loss)
        return module

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
        """Train on this replica's share of a batch; DeepSpeed drains after every step."""
        replicas = self._context.replicas
        self._share = batch.share(self._context.topology.replica, replicas)
        self._expect(training=True, samples=self._context.micro_batch_size)
        self._count_anew(range(len(self._share)))
        with self._waiting():
            loss = self._engine.train_batch(
                data_iter=self._stream(self._share, range(len(self._share)))
            )
        # The bytes that a ring all-reduce of the gradients sends.
        self._bytes_sent += self._gradient_bytes * 2 * (replicas - 1) // replicas
        self._context.recorder.end_step()
        # DeepSpeed has told it to all ranks.
        self._context.recorder.hear_loss(loss)

    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores of this replica's share on the last stage, none on others."""
        topology = self._context.topology
        if topology.replicas > 1:
            summing = SumOverGroup(self._module.mpu().get_data_parallel_group())
            with self._waiting():
                average_buffers(self._module, summing, topology.replicas)
        self._share = batches.share(topology.replica, topology.replicas)
        self._scores, self._metrics = [], metrics
        # All replicas take part for every size: DeepSpeed begins an evaluation with a barrier.
        for size in sorted({batches.size(n) for n in range(len(batches))}, reverse=True):
            numbers = [n for n in range(len(self._share)) if self._share.size(n) == size]
            self._expect(training=False, samples=size)
            self._count_anew(numbers)
            with self._waiting():
                self._engine.eval_batch(
                    data_iter=self._stream(self._share, numbers),
                    reduce_output=None,
                    bcast_loss=False,
                    num_micro_batches=len(numbers),
                )
        return self._scores

    def _waiting(self) -> AbstractContextManager[None]:
        job, step = self._context.job, self._context.recorder.step
        where = f"stage {self._context.topology.stage} (rank {job.rank}), step {step}"
        return noticing_silence(where, "word from another stage", job.limit_seconds)

    def _expect(self, *, training: bool, samples: int) -> None:
        """Prepare for micro-batches of this kind and size, unless the last ones were the same."""
        if self._expected == (training, samples):
            return
        self._expected = training, samples
        self._module.enter = (
            self._crossing.enter(training=training, samples=samples) or self._enter_first_stage
        )
        self._samples = samples
        self._module.leave = self._crossing.leave(training=training, samples=samples)
        # DeepSpeed says what it sends before the first tensor, then no more.
        self._engine.reset_activation_shape()
        self._module.calls.training = training

    def _count_anew(self, numbers: Iterable[int]) -> None:
        """Count instructions from 0 again, for these micro-batches of this replica's share."""
        self._numbers = [self._share.number(n) for n in numbers]
        self._done.clear()
        self._held_inputs.clear()
        self._held_targets.clear()

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of this stage."""
        return TrainedState(
            self._module.local_layers(),
            self._updates.optimizer,
            self._updates.scheduler,
            self._context.topology.replica,
            self._updates.groups,
        )

    def bytes_sent(self) -> int:
        """Return the bytes sent to neighbouring stages and replicas while training."""
        return self._bytes_sent

    def _loss_or_score(self, outputs: Activation, handed: Tensor) -> Tensor:
        # In evaluation, too, DeepSpeed calls the loss function; what that returns is not used.
        context, calls = self._context, self._module.calls
        targets = self._held_targets.pop(0) if self._held_targets else handed
        if self._module.training:
            return calls.loss(self._loss, outputs, targets)
        form = context.compute_format
        self._scores.append(
            score(context.model, calls, form, outputs, targets, self._samples, self._metrics)
        )
        return torch.zeros(())

    def _stream(
        self, batches: MicroBatches, numbers: Iterable[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        topology, loading = self._context.topology, self._context.loading
        is_first, is_last = topology.stage == 0, topology.stage == topology.stages - 1
        for n in numbers:
            inputs = targets = torch.zeros(1)
            if is_first:
                arranged = self._context.compute_format.arranged(loading.inputs(batches, n))
                inputs = self._handed(arranged, self._held_inputs)
            if is_last:
                targets = self._handed(loading.targets(batches, n), self._held_targets)
            yield inputs, targets

    def _handed(self, loaded: Activation, held: list[Activation]) -> Tensor:
        """Return a tensor as it is, and hold back for the model what DeepSpeed would not take."""
        if isinstance(loaded, Tensor):
            return loaded
        held.append(moved(loaded, self._context.device))
        return torch.zeros(1)

    def _enter_first_stage(self, handed: Activation) -> Activation:
        # Micro-batches are loaded and run in the same order.
        return self._held_inputs.pop(0) if self._held_inputs else handed

    def _wrap_instructions(self) -> None:
        self._engine._INSTRUCTION_MAP = {
            instruction: self._wrapped(execute, instruction.__name__)
            for instruction, execute in self._engine._INSTRUCTION_MAP.items()
        }

    def _wrapped(self, execute: Callable[..., None], instruction: str) -> Callable[..., None]:
        kind = _KINDS.get(instruction)
        if kind is None:
            return execute

        def run(engine: Any, **arguments: int) -> None:
            # Micro-batches pass in order, so an instruction's count is its micro-batch's number.
            count = self._done[instruction]
            self._done[instruction] += 1
            start = self._context.recorder.start()
            try:
                if instruction == "OptimizerStep":
                    start = self._update(count, execute, start)
                else:
                    self._before(instruction, count, **arguments)
                    execute(engine, **arguments)
                if instruction == "BackwardPass" and not engine.is_first_stage():
                    fill_missing_gradient(engine.pipe_buffers["inputs"][arguments["buffer_id"]])
            except Exception as error:
                inputs = self._inputs(error, **arguments)
                named = self._named(instruction, count)
                raise self._faults.describe(error, named, inputs) from error
            if self._module.training:
                number = self._numbers[count] if kind != "update" else count
                self._context.recorder.add(kind, number, start)

        return run

    def _update(self, step: int, execute: Callable[..., None], start: object) -> object:
        """Apply the rules for gradients, then update or not; return when the update started."""
        admitted = self._rules.apply()
        if self._rules.waits:
            self._context.recorder.add("receive", step, start)
            start = self._context.recorder.start()
        if admitted:
            execute(self._engine)
        else:
            self._engine.zero_grad()
            advance(self._updates.scheduler, 1)
            self._engine.global_steps += 1
        return start

    def _before(self, instruction: str, count: int, buffer_id: int = 0) -> None:
        buffers = self._engine.pipe_buffers
        match instruction:
            case "ForwardPass":
                self._module.calls.number = self._numbers[count]
            case "BackwardPass" if self._engine.is_last_stage():
                samples = self._share.size(count)
                self._context.recorder.add_loss(self._engine.loss, samples)
                if not self._engine.loss.requires_grad:
                    # Nothing has a gradient, but DeepSpeed runs backward from the loss regardless.
                    self._engine.loss = self._engine.loss.detach().requires_grad_().clone()
            case "SendActivation" if self._module.training:
                self._bytes_sent += buffers["outputs"][buffer_id].nbytes
            case "SendGrad":
                # A gradient is as large as the input that it belongs to.
                self._bytes_sent += buffers["inputs"][buffer_id].nbytes

    def _inputs(self, error: Exception, buffer_id: int = 0) -> Activation:
        """Return the inputs by which the layer that is to blame is found; None for no search."""
        if not isinstance(error, NonFiniteLossError):
            return None
        received = self._engine.pipe_buffers["inputs"][buffer_id].detach()
        return self._module.enter(received) if self._module.enter else received

    def _named(self, instruction: str, count: int) -> str:
        if instruction == "OptimizerStep":
            return "update"
        named = f"micro-batch {self._numbers[count]}"
        return named if self._module.training else f"evaluation {named}"
