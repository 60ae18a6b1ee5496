"""A DeepSpeed pipeline engine that runs any schedule of ours, over any number of batches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import ClassVar

import torch
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.pipe.engine import PipelineEngine
from torch import Tensor

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.faults import BoundaryError, Faults
from hpc_lpm.engine.optimizer import build_optimizer, build_scheduler, clip_gradients
from hpc_lpm.engine.pipeline.agreed_programme import AgreedProgramme, Announcements
from hpc_lpm.engine.pipeline.boundary import BoundarySpec, StageBoundaries
from hpc_lpm.engine.pipeline.gradient_average import GradientAverage
from hpc_lpm.engine.pipeline.lag_compensation import PredictedWeights, stage_optimizer
from hpc_lpm.engine.pipeline.module import PlannedModule
from hpc_lpm.engine.pipeline.stage_pass import InFlight, StagePass, ready_for_autograd
from hpc_lpm.engine.pipeline.tied_exchange import TiedExchange
from hpc_lpm.engine.pipeline.transport.channel import StageChannels
from hpc_lpm.engine.pipeline.weight_policy import weight_policy
from hpc_lpm.engine.runner import RunContext, TrainedState
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.errors import TrainingError
from hpc_lpm.schedules.instructions import (
    Backward,
    Forward,
    Instruction,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    ReceiveTiedGradient,
    ReceiveTiedWeights,
    Reduce,
    Replay,
    SendActivation,
    SendGradient,
    SendTiedGradient,
    SendTiedWeights,
    TiedMessage,
    Update,
)


class ScheduledPipelineEngine(PipelineEngine):  # type: ignore[misc]
    """Executes a stage's programme on DeepSpeed's module, process groups and optimizer step.

    Unlike its base class it does not drain, broadcast a loss or synchronise anything after a batch:
    one programme spans as many batches as there are between two evaluations.
    """

    def __init__(self, context: RunContext, module: PlannedModule, tied: TiedParameters) -> None:
        settings = context.settings
        config = deepspeed_config(context)
        mpu = module.mpu()
        optimizer = build_optimizer(
            tied.without_copies(module.parameters()), stage_optimizer(settings, context.topology)
        )
        scheduler = build_scheduler(optimizer, settings.learning_rate, context.updates)
        super().__init__(
            args=SimpleNamespace(),
            model=module,
            optimizer=optimizer,
            # `_take_model_step` steps it once an update.
            lr_scheduler=scheduler,
            mpu=mpu,
            config=config,
            config_class=DeepSpeedConfig(config, mpu),
            dont_change_device=True,
        )
        self._context = context
        self._scheduler = scheduler
        self._tied = tied
        self._recorder = context.recorder
        self._stage_pass = StagePass(
            self.module,
            module.local_layers(),
            settings.seed,
            context.compute_format.loss(context.model.loss) if self.is_last_stage() else None,
        )
        self._faults = Faults(
            context.model,
            module.local_layers(),
            context.job.rank,
            stage=context.topology.stage,
            compute_format=context.compute_format,
        )
        self._average = (
            GradientAverage(
                tied.without_copies(module.parameters()),
                self.grid.get_data_parallel_group(),
                context.replicas,
                timeout_seconds=settings.receive_timeout_seconds,
            )
            if context.replicas > 1
            else None
        )
        self._policy = weight_policy(
            settings.weights, list(module.parameters()), casts=settings.precision != "fp32"
        )
        self._predicted_weights = (
            PredictedWeights(self.basic_optimizer, in_place=settings.weights == "live")
            if settings.prediction
            else None
        )
        self._is_lagged: Callable[[int], bool] = _never
        self._in_flight: dict[int, InFlight] = {}
        self._leaving_activation: dict[int, tuple[Tensor, ...]] = {}
        self._leaving_gradient: dict[int, tuple[Tensor, ...]] = {}
        self._arrived_gradient: dict[int, tuple[Tensor, ...]] = {}
        self._correct = 0

    @property
    def loss(self) -> Tensor:
        """A placeholder of the base class, in host memory.

        Its constructor sends it to the next stage, and gloo, which ranks that share a GPU have
        between them, cannot send device memory.
        """
        return self._placeholder

    @loss.setter
    def loss(self, value: Tensor) -> None:
        self._placeholder = value.cpu()

    def connect(self, boundaries: StageBoundaries, channels: StageChannels) -> None:
        """Take over the channels to the neighbouring stages and what crosses them."""
        self._boundaries = boundaries
        self._from_previous, self._to_previous = channels.from_previous, channels.to_previous
        self._from_next, self._to_next = channels.from_next, channels.to_next
        self._tied_exchange = TiedExchange(self._tied, channels.tied)

    def state(self) -> TrainedState:
        """Return this stage's layers and what updates them."""
        return TrainedState(
            self.module.local_layers(),
            self.basic_optimizer,
            self._scheduler,
            self._context.topology.replica,
        )

    def train_on(self, programme_of: Callable[[int], Programme], batches: MicroBatches) -> int:
        """Execute a training programme until it has drained; return the bytes this stage sent.

        Args:
            programme_of: returns the programme for so many micro-batches: fewer if the ranks agree
                to stop.
            batches: all that there are.
        """
        self.module.train()
        sent_before = self._bytes_sent()
        agreed = AgreedProgramme(
            programme_of, len(batches), batches.per_step, self._context.agreement
        )
        self._is_lagged = agreed.is_lagged
        announcements = self._announcements(agreed.whole(), batches, batches.per_step)
        self._execute(agreed.run(announcements), batches)
        return self._bytes_sent() - sent_before

    def _bytes_sent(self) -> int:
        senders = (self._to_previous, self._to_next, self._tied_exchange)
        averaged = self._average.bytes_sent if self._average else 0
        return sum(sender.bytes_sent for sender in senders) + averaged

    @torch.no_grad()
    def evaluate_on(self, programme: Programme, batches: MicroBatches) -> int:
        """Execute a programme of forward passes; the last stage returns the right predictions."""
        self.module.eval()
        self._is_lagged = _never
        self._correct = 0
        self._announcements(programme, batches, 1).announce(len(batches))
        self._execute(programme, batches)
        return self._correct

    def _announcements(
        self, programme: Programme, batches: MicroBatches, micro_batches_per_step: int
    ) -> Announcements:
        return Announcements(
            programme,
            batches,
            self._boundaries,
            self._from_previous,
            self._from_next,
            self._tied_exchange,
            micro_batches_per_step,
        )

    def _execute(self, instructions: Iterable[Instruction], batches: MicroBatches) -> None:
        self._batches = batches
        current: Instruction | None = None
        # DeepSpeed's hooks on the weights refuse a backward that they were not told about.
        self._running_engine_backward = True
        try:
            for current in instructions:
                self._INSTRUCTION_MAP[type(current)](self, *current.arguments)
            self._to_previous.flush()
            self._to_next.flush()
            self._tied_exchange.flush()
        except Exception as error:
            raise self._described(error, current) from error
        finally:
            self._running_engine_backward = False

    def _described(self, error: Exception, current: Instruction | None) -> TrainingError:
        if current is None or isinstance(current, Reduce | Update | TiedMessage):
            return self._faults.describe(error, "update" if current else "start")
        number = current.micro_batch
        computes = isinstance(current, Forward | Replay | Backward)
        flight = self._in_flight.get(number) if computes else None
        named = (
            f"micro-batch {self._batches.number(number)}"
            if self.module.training
            else f"evaluation micro-batch {self._batches.number(number)}"
        )
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
        lagged = self._is_lagged(micro_batch)
        with self._around_lagged_forward() if lagged else nullcontext():
            outputs = self._stage_pass.forward(
                flight,
                self._batches.number(micro_batch),
                keep_graph=not (lagged and self._policy.replays),
            )
        if not self.is_last_stage():
            agreed = self._check_agreed(micro_batch, outputs)
            self._leaving_activation[micro_batch] = agreed.arranged(outputs)
        if not self.module.training:
            self._count_correct(self._in_flight.pop(micro_batch), outputs)
            return
        self._record("forward", micro_batch, start)
        flight.version = self.global_steps
        self._recorder.add_in_flight(len(self._in_flight))

    @contextmanager
    def _around_lagged_forward(self) -> Iterator[None]:
        predicted = self._predicted_weights.applied() if self._predicted_weights else nullcontext()
        with self._policy.lagged_forward(), predicted:
            yield

    def _check_agreed(self, micro_batch: int, outputs: Tensor | tuple[Tensor, ...]) -> BoundarySpec:
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
        return agreed

    def _exec_send_activations(self, micro_batch: int) -> None:
        start = self._recorder.start()
        if not self.module.training:
            # Nothing comes back that would hold a fast stage up: it would pile up what it sends.
            self._to_next.flush()
        self._to_next.send(self._leaving_activation.pop(micro_batch))
        self._record("send", micro_batch, start)

    def _exec_replay(self, micro_batch: int) -> None:
        start = self._recorder.start()
        flight = self._in_flight[micro_batch]
        self._stage_pass.forward(flight, self._batches.number(micro_batch), keep_graph=True)
        self._record("replay", micro_batch, start)

    def _exec_recv_grads(self, micro_batch: int) -> None:
        start = self._recorder.start()
        received = self._from_next.receive()
        self._arrived_gradient[micro_batch] = tuple(t.to(self.device) for t in received)
        self._record("receive", micro_batch, start)

    def _exec_backward_pass(self, micro_batch: int) -> None:
        flight = self._in_flight[micro_batch]
        self._recorder.add_lag(self.global_steps - flight.version)
        if flight.loss is not None:
            # Not after its forward, which may precede the end of the step before.
            self._recorder.add_loss(flight.loss, self._batches.size(micro_batch))
        start = self._recorder.start()
        gradients = self._stage_pass.backward(
            flight,
            self._arrived_gradient.pop(micro_batch, ()),
            self._batches.loss_divisor(micro_batch),
        )
        del self._in_flight[micro_batch]
        if self._predicted_weights:
            self._predicted_weights.add_gradients(
                self._batches.size(micro_batch), self._batches.samples_of_step(micro_batch)
            )
        if not self.is_first_stage():
            agreed = self._boundaries.incoming[self._batches.size(micro_batch)]
            self._leaving_gradient[micro_batch] = agreed.arranged_gradients(gradients)
        self._record("backward", micro_batch, start)

    def _exec_send_grads(self, micro_batch: int) -> None:
        start = self._recorder.start()
        self._to_previous.send(self._leaving_gradient.pop(micro_batch))
        self._record("send", micro_batch, start)

    def _exec_reduce(self, step: int) -> None:
        if self._average:
            self._tied.collect_gradients()
            self._average.start()

    def _exec_optimizer_step(self, step: int) -> None:
        if self._average:
            start = self._recorder.start()
            self._average.finish(self._release_sent)
            self._record("receive", step, start)
        start = self._recorder.start()
        self._force_grad_boundary = True
        with self._policy.update(), self._tied.update():
            clip_gradients(self.module.parameters(), self._context.settings.clip_norm)
            self._take_model_step(None)
        self._force_grad_boundary = False
        if self._average:
            self._average.begin_step()
        if self._predicted_weights:
            self._predicted_weights.clear_gradients()
        self._record("update", step, start)
        self._recorder.end_step()

    def _exec_send_tied_gradient(self, step: int, stage: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.send_gradient(stage)
        self._record("send", step, start)

    def _exec_recv_tied_gradient(self, step: int, stage: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.receive_gradient(stage)
        self._record("receive", step, start)

    def _exec_send_tied_weights(self, step: int, stage: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.send_weights(stage)
        self._record("send", step, start)

    def _exec_recv_tied_weights(self, step: int, stage: int) -> None:
        start = self._recorder.start()
        with self._policy.update():
            self._tied_exchange.receive_weights(stage)
        self._record("receive", step, start)

    def _release_sent(self) -> None:
        self._to_previous.release_sent()
        self._to_next.release_sent()

    def _load(self, micro_batch: int) -> None:
        start = self._recorder.start()
        if self.is_first_stage():
            inputs = self._batches.inputs(micro_batch).to(self.device)
            arranged = self._context.compute_format.arranged(inputs)
            self._in_flight[micro_batch] = InFlight(arranged)
        if self.is_last_stage():
            targets = self._batches.targets(micro_batch).to(self.device)
            self._in_flight[micro_batch].targets = targets
        self._record("load", micro_batch, start)

    def _count_correct(self, flight: InFlight, outputs: Tensor | tuple[Tensor, ...]) -> None:
        if flight.targets is not None and isinstance(outputs, Tensor):
            self._correct += int(self._context.model.correct(outputs, flight.targets))

    def _record(self, kind: str, number: int, start: object) -> None:
        if self.module.training:
            self._recorder.add(kind, number, start)

    # What the base class has here for its own instructions.
    _INSTRUCTION_MAP: ClassVar[dict[type, Callable[..., None]]] = {
        ReceiveActivation: _exec_recv_activations,
        Forward: _exec_forward_pass,
        Replay: _exec_replay,
        SendActivation: _exec_send_activations,
        ReceiveGradient: _exec_recv_grads,
        Backward: _exec_backward_pass,
        SendGradient: _exec_send_grads,
        SendTiedGradient: _exec_send_tied_gradient,
        ReceiveTiedGradient: _exec_recv_tied_gradient,
        SendTiedWeights: _exec_send_tied_weights,
        ReceiveTiedWeights: _exec_recv_tied_weights,
        Reduce: _exec_reduce,
        Update: _exec_optimizer_step,
    }


def _never(micro_batch: int) -> bool:
    """Tell that no micro-batch lags."""
    return False


def deepspeed_config(context: RunContext, clip_norm: float = 0.0) -> dict[str, object]:
    """Return DeepSpeed's configuration of a run; by default DeepSpeed is not to clip."""
    settings = context.settings
    return {
        "train_batch_size": settings.batch_size,
        "train_micro_batch_size_per_gpu": context.micro_batch_size,
        "gradient_accumulation_steps": settings.micro_batches,
        # DeepSpeed clips the global norm to 1 unless told not to, with an all-reduce a step.
        "gradient_clipping": clip_norm,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
