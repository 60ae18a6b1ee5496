"""A DeepSpeed pipeline engine that runs any schedule of ours, over any number of batches."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.pipe.engine import PipelineEngine
from torch import Tensor

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.faults import BoundaryError, Faults
from hpc_lpm.engine.job import MpiJob
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.pipeline.boundary import BoundarySpec, StageBoundaries
from hpc_lpm.engine.pipeline.instruction_stream import (
    COMMANDS,
    InstructionStream,
)
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.stage_pass import InFlight, StagePass, ready_for_autograd
from hpc_lpm.engine.pipeline.transport import Channel
from hpc_lpm.engine.pipeline.weight_policy import weight_policy
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.errors import TrainingError
from hpc_lpm.models.layered import as_tuple
from hpc_lpm.schedules.instructions import (
    Backward,
    Forward,
    Instruction,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    Replay,
    SendActivation,
    SendGradient,
    Update,
)
from hpc_lpm.schedules.replays import lagged_micro_batches

_ACTIVATION_TAG = 1
_GRADIENT_TAG = 2


class ScheduledPipelineEngine(PipelineEngine):  # type: ignore[misc]
    """Executes a stage's programme on DeepSpeed's module, optimizer step and instruction loop.

    Unlike its base class it does not drain, broadcast a loss or synchronise anything after a batch:
    one programme spans as many batches as there are between two evaluations.
    """

    def __init__(self, context: RunContext, module: PlannedModule) -> None:
        settings = context.settings
        config = deepspeed_config(context)
        mpu = module.mpu()
        super().__init__(
            args=SimpleNamespace(),
            model=module,
            optimizer=build_optimizer(module.parameters(), settings.optimizer),
            mpu=mpu,
            config=config,
            config_class=DeepSpeedConfig(config, mpu),
            dont_change_device=True,
        )
        self._context = context
        self._recorder = context.recorder
        self._stage_pass = StagePass(
            self.module,
            module.local_layers(),
            settings.seed,
            context.model.loss if self.is_last_stage() else None,
        )
        self._faults = Faults(
            context.model, module.local_layers(), context.job.rank, stage=context.job.rank
        )
        self._policy = weight_policy(settings.weights, list(module.parameters()))
        self._lagged: frozenset[int] = frozenset()
        self._in_flight: dict[int, InFlight] = {}
        self._leaving_activation: dict[int, tuple[Tensor, ...]] = {}
        self._leaving_gradient: dict[int, tuple[Tensor, ...]] = {}
        self._arrived_gradient: dict[int, tuple[Tensor, ...]] = {}
        self._correct = 0

    def connect(self, job: MpiJob, boundaries: StageBoundaries) -> None:
        """Open the channels to the neighbouring stages."""
        self._boundaries = boundaries
        previous, following = job.rank - 1, job.rank + 1

        def channel(peer: int, tag: int) -> Channel:
            limit = self._context.settings.receive_timeout_seconds
            return Channel(job.communicator, peer, tag, receive_timeout_seconds=limit)

        self._from_previous = channel(previous, _ACTIVATION_TAG)
        self._to_previous = channel(previous, _GRADIENT_TAG)
        self._from_next = channel(following, _GRADIENT_TAG)
        self._to_next = channel(following, _ACTIVATION_TAG)

    def train_on(self, programme: Programme, batches: MicroBatches) -> int:
        """Execute a training programme until it has drained; return the bytes this stage sent."""
        self.module.train()
        self._lagged = lagged_micro_batches(programme)
        sent_before = self._to_previous.bytes_sent + self._to_next.bytes_sent
        self._execute(programme, batches)
        return self._to_previous.bytes_sent + self._to_next.bytes_sent - sent_before

    @torch.no_grad()
    def evaluate_on(self, programme: Programme, batches: MicroBatches) -> int:
        """Execute a programme of forward passes; the last stage returns the right predictions."""
        self.module.eval()
        self._lagged = frozenset()
        self._correct = 0
        self._execute(programme, batches)
        return self._correct

    def _execute(self, programme: Programme, batches: MicroBatches) -> None:
        self._batches = batches
        self._from_previous.expect(
            self._boundaries.incoming[batches.size(instruction.micro_batch)].tensors
            for instruction in programme
            if isinstance(instruction, ReceiveActivation)
        )
        self._from_next.expect(
            self._boundaries.outgoing[batches.size(instruction.micro_batch)].gradients()
            for instruction in programme
            if isinstance(instruction, ReceiveGradient)
        )
        stream = InstructionStream(programme)
        try:
            self._exec_schedule(stream)
            self._to_previous.flush()
            self._to_next.flush()
        except Exception as error:
            raise self._described(error, stream.current) from error

    def _described(self, error: Exception, current: Instruction | None) -> TrainingError:
        if current is None or isinstance(current, Update):
            return self._faults.describe(error, "update" if current else "start")
        number = current.micro_batch
        computes = isinstance(current, Forward | Replay | Backward)
        flight = self._in_flight.get(number) if computes else None
        named = (
            f"micro-batch {self._batches.first_index + number}"
            if self.module.training
            else f"evaluation micro-batch {number}"
        )
        # The search may go backward through the weights, see `_exec_backward_pass`.
        self._running_engine_backward = True
        return self._faults.describe(error, named, flight.inputs if flight else None)

    def _exec_recv_activations(self, micro_batch: int) -> None:
        start = self._recorder.start()
        received = ready_for_autograd(self._from_previous.receive(), self.device)
        packed = self._boundaries.incoming[self._batches.size(micro_batch)].packed
        self._in_flight[micro_batch] = InFlight(received if packed else received[0])
        self._record("receive", micro_batch, start)

    def _exec_forward_pass(self, micro_batch: int) -> None:
        self._load(micro_batch)
        start = self._recorder.start()
        flight = self._in_flight[micro_batch]
        lagged = micro_batch in self._lagged
        with self._policy.lagged_forward() if lagged else nullcontext():
            outputs = self._stage_pass.forward(
                flight,
                self._batches.first_index + micro_batch,
                keep_graph=not (lagged and self._policy.replays),
            )
        if not self.is_last_stage():
            self._check_agreed(micro_batch, outputs)
            self._leaving_activation[micro_batch] = as_tuple(outputs)
        if not self.module.training:
            self._count_correct(self._in_flight.pop(micro_batch), outputs)
            return
        self._record("forward", micro_batch, start)
        flight.version = self.global_steps
        self._recorder.add_in_flight(len(self._in_flight))
        if flight.loss is not None:
            self._recorder.add_loss(flight.loss)

    def _check_agreed(self, micro_batch: int, outputs: Tensor | tuple[Tensor, ...]) -> None:
        # Checked before it is sent: MPI may write a message that is too long beyond its buffer.
        agreed = self._boundaries.outgoing[self._batches.size(micro_batch)]
        found = BoundarySpec.of(outputs)
        if found != agreed:
            index, _ = list(self._faults.layers.items())[-1]
            raise BoundaryError(
                f"layer {index} {self._context.model.layers[index].name}, the stage's last, "
                f"returned {found} where {agreed} was agreed before training: layers must return "
                "shapes that depend on the number of samples alone"
            )

    def _exec_send_activations(self, micro_batch: int) -> None:
        start = self._recorder.start()
        self._to_next.send(self._leaving_activation.pop(micro_batch))
        self._record("send", micro_batch, start)

    def _exec_replay(self, micro_batch: int) -> None:
        start = self._recorder.start()
        flight = self._in_flight[micro_batch]
        self._stage_pass.forward(flight, self._batches.first_index + micro_batch, keep_graph=True)
        self._record("replay", micro_batch, start)

    def _exec_recv_grads(self, micro_batch: int) -> None:
        start = self._recorder.start()
        received = self._from_next.receive()
        self._arrived_gradient[micro_batch] = tuple(t.to(self.device) for t in received)
        self._record("receive", micro_batch, start)

    def _exec_backward_pass(self, micro_batch: int) -> None:
        flight = self._in_flight[micro_batch]
        self._recorder.add_lag(self.global_steps - flight.version)
        start = self._recorder.start()
        # DeepSpeed's hooks on the weights refuse a backward that they were not told about.
        self._running_engine_backward = True
        try:
            gradients = self._stage_pass.backward(
                flight, self._arrived_gradient.pop(micro_batch, ()), self.micro_batches
            )
        finally:
            self._running_engine_backward = False
        del self._in_flight[micro_batch]
        if not self.is_first_stage():
            self._leaving_gradient[micro_batch] = gradients
        self._record("backward", micro_batch, start)

    def _exec_send_grads(self, micro_batch: int) -> None:
        start = self._recorder.start()
        self._to_previous.send(self._leaving_gradient.pop(micro_batch))
        self._record("send", micro_batch, start)

    def _exec_optimizer_step(self, step: int) -> None:
        start = self._recorder.start()
        self._force_grad_boundary = True
        with self._policy.update():
            self._take_model_step(None)
        self._force_grad_boundary = False
        self._record("update", step, start)
        self._recorder.end_step()

    def _load(self, micro_batch: int) -> None:
        start = self._recorder.start()
        if self.is_first_stage():
            inputs = self._batches.inputs(micro_batch).to(self.device)
            self._in_flight[micro_batch] = InFlight(inputs)
        if self.is_last_stage():
            targets = self._batches.targets(micro_batch).to(self.device)
            self._in_flight[micro_batch].targets = targets
        self._record("load", micro_batch, start)

    def _count_correct(self, flight: InFlight, outputs: Tensor | tuple[Tensor, ...]) -> None:
        if flight.targets is not None and isinstance(outputs, Tensor):
            self._correct += int(self._context.model.correct(outputs, flight.targets))

    def _record(self, kind: str, number: int, start_seconds: float) -> None:
        if self.module.training:
            self._recorder.add(kind, number, start_seconds)

    # The base class looks instructions up here, so overriding its methods alone has no effect.
    _INSTRUCTION_MAP = {  # noqa: RUF012
        COMMANDS[ReceiveActivation]: _exec_recv_activations,
        COMMANDS[Forward]: _exec_forward_pass,
        COMMANDS[Replay]: _exec_replay,
        COMMANDS[SendActivation]: _exec_send_activations,
        COMMANDS[ReceiveGradient]: _exec_recv_grads,
        COMMANDS[Backward]: _exec_backward_pass,
        COMMANDS[SendGradient]: _exec_send_grads,
        COMMANDS[Update]: _exec_optimizer_step,
    }


def deepspeed_config(context: RunContext) -> dict[str, object]:
    """Return DeepSpeed's configuration of a run."""
    settings = context.settings
    return {
        "train_batch_size": settings.batch_size,
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.micro_batches,
        # DeepSpeed clips the global norm to 1 unless told not to, with an all-reduce a step.
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
