"""Executes the passes and messages of one stage: what instructions about a micro-batch do."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import ClassVar

from torch import Tensor

from hpc_lpm.activation import Activation, moved
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores, score
from hpc_lpm.engine.faults import Faults
from hpc_lpm.engine.pipeline.announcements import Announcements
from hpc_lpm.engine.pipeline.boundary import BoundarySpec
from hpc_lpm.engine.pipeline.crossing import IncomingBoundary, OutgoingBoundary
from hpc_lpm.engine.pipeline.held_stage import HeldStage
from hpc_lpm.engine.pipeline.prediction import Prediction
from hpc_lpm.engine.pipeline.rehearsal import StageRehearsal
from hpc_lpm.engine.pipeline.stage_pass import InFlight, StagePass
from hpc_lpm.engine.pipeline.transport.channel import StageChannels
from hpc_lpm.engine.pipeline.under_way import BatchesUnderWay
from hpc_lpm.engine.pipeline.weight_policy import WeightPolicy
from hpc_lpm.engine.records import INPUT_GRADIENT, WEIGHT_GRADIENT
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.errors import TrainingError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    PassOrMessage,
    ReceiveActivation,
    ReceiveGradient,
    Replay,
    SendActivation,
    SendGradient,
)

Gradients = tuple[Tensor | None, ...]


class StageExecutor:
    """Executes what a programme says about the micro-batches of one stage.

    Args:
        context: of the run.
        stage: the stage.
        under_way: the batches that its rank is executing.
        policy: what is done with lagged micro-batches.
        prediction: predicts the weights of lagged micro-batches, None if these run without.
        hears_loss: whether this stage tells its rank the loss of a step, which travels backwards
            with gradients.
        gradient_shrink: the factor of the gradients of the inputs, which leave the stage.
    """

    def __init__(
        self,
        context: RunContext,
        stage: HeldStage,
        under_way: BatchesUnderWay,
        policy: WeightPolicy,
        prediction: Prediction | None,
        *,
        hears_loss: bool,
        gradient_shrink: float,
    ) -> None:
        self._context = context
        self._place, self._layers, self._calls = stage.place, dict(stage.layers), stage.calls
        self._under_way = under_way
        self._device = context.device
        self._recorder = context.recorder
        self._stage_pass = StagePass(
            stage.calls,
            context.compute_format,
            context.compute_format.loss(context.model.loss) if self._place.is_last else None,
        )
        self._faults = Faults(
            context.model,
            self._layers,
            context.job.rank,
            stage=self._place.stage,
            compute_format=context.compute_format,
        )
        self._policy = policy
        self._prediction = prediction
        self._hears_loss = hears_loss
        self._gradient_shrink = gradient_shrink
        self._in_flight: dict[int, InFlight] = {}
        self._leaving_activation: dict[int, tuple[BoundarySpec, Activation]] = {}
        self._leaving_gradient: dict[int, tuple[BoundarySpec, Gradients]] = {}
        self._arrived_gradient: dict[int, Gradients] = {}
        self._heard_loss: Tensor | None = None
        self.loss_bytes_sent = 0
        """The bytes of losses among those that the channels have sent."""
        self.scores: list[MicroBatchScores] = []
        """Those of the evaluation, on the last stage."""
        self.metrics: Sequence[EvaluationMetric] = ()
        """The metrics of an evaluation."""

    def connect(self, rehearsal: StageRehearsal, channels: StageChannels) -> None:
        """Take over the channels to the neighbouring stages, and what rehearsals find to cross."""
        boundaries = rehearsal.boundaries
        self._incoming = IncomingBoundary(boundaries.incoming, channels)
        self._outgoing = OutgoingBoundary(boundaries.outgoing, channels, max(self._layers))
        self._announcements = Announcements(boundaries, channels.agreed, self._place)

    def heed(self, rehearsal: StageRehearsal) -> None:
        """Do in every pass what rehearsals have found to be necessary."""
        self._stage_pass.heed(rehearsal)

    def expect(self, batch: MicroBatches) -> None:
        """Announce the messages of a batch."""
        self._announcements.announce(batch, training=self._under_way.training)

    def execute(self, instruction: PassOrMessage) -> None:
        """Execute an instruction about a micro-batch.

        Raises:
            TrainingError: if anything fails, naming the micro-batch and, where known, the layer.
        """
        try:
            self._EXECUTES[type(instruction)](self, instruction.micro_batch)
        except Exception as error:
            raise self._described(error, instruction) from error

    def _described(self, error: Exception, instruction: PassOrMessage) -> TrainingError:
        number = instruction.micro_batch
        computes = isinstance(instruction, Forward | Replay | Backward | BackwardInput)
        flight = self._in_flight.get(number) if computes else None
        batch, place = self._under_way.located(number)
        named = f"micro-batch {batch.number(place)}"
        if not self._under_way.training:
            named = f"evaluation {named}"
        return self._faults.describe(error, named, flight.inputs if flight else None)

    def _receive_activation(self, micro_batch: int) -> None:
        start = self._recorder.start()
        inputs, spec = self._incoming.receive(
            training=self._under_way.training,
            samples=self._under_way.samples(micro_batch),
            device=self._device,
        )
        self._in_flight[micro_batch] = InFlight(inputs, incoming=spec)
        self._record("receive", micro_batch, start)

    def _forward(self, micro_batch: int) -> None:
        under_way = self._under_way
        self._load(micro_batch)
        start = self._recorder.start()
        flight = self._in_flight[micro_batch]
        lagged = under_way.is_lagged(micro_batch)
        keep_graph = not (lagged and self._policy.replays)
        samples = under_way.samples(micro_batch)
        with self._around_forward(micro_batch, lagged=lagged):
            outputs = self._stage_pass.forward(
                flight,
                under_way.number(micro_batch),
                training=under_way.training,
                keep_graph=keep_graph,
                lagged=lagged,
            )
        if not self._place.is_last:
            flight.outgoing = self._outgoing.check(
                outputs, training=under_way.training, samples=samples
            )
            self._leaving_activation[micro_batch] = flight.outgoing, outputs
        if not under_way.training:
            self._score(flight, outputs, samples)
            del self._in_flight[micro_batch]
            return
        self._record("forward", micro_batch, start)
        behind = (
            self._prediction.behind if self._prediction and self._is_predicted(micro_batch) else 0
        )
        flight.version = under_way.updates - behind
        under_way.in_flight += 1
        self._recorder.add_in_flight(under_way.in_flight)

    def _load(self, micro_batch: int) -> None:
        start = self._recorder.start()
        batch, place = self._under_way.located(micro_batch)
        if self._place.is_first:
            loaded = self._context.loading.inputs(batch, place)
            inputs = moved(loaded, self._device)
            arranged = self._context.compute_format.arranged(inputs)
            self._in_flight[micro_batch] = InFlight(arranged)
        if self._place.is_last:
            loaded = self._context.loading.targets(batch, place)
            targets = moved(loaded, self._device)
            self._in_flight[micro_batch].targets = targets
        self._record("load", micro_batch, start)

    @contextmanager
    def _around_forward(self, micro_batch: int, *, lagged: bool) -> Iterator[None]:
        predicted = self._is_predicted(micro_batch)
        with ExitStack() as around:
            # Copies of another stage's weights are predicted where this stage does not lag itself.
            if lagged or predicted:
                around.enter_context(self._policy.lagged_forward())
            if predicted and self._prediction:
                around.enter_context(self._prediction.applied(self._step_of(micro_batch)))
            yield

    def _is_predicted(self, micro_batch: int) -> bool:
        """Tell if the forward pass of a micro-batch has other weights than the current ones."""
        if self._prediction is None or not self._under_way.training:
            return False
        return self._prediction.is_ahead(self._step_of(micro_batch))

    def _step_of(self, micro_batch: int) -> int:
        return micro_batch // self._under_way.per_step

    def _score(self, flight: InFlight, outputs: Activation, samples: int) -> None:
        if self._place.is_last:
            context = self._context
            found = score(
                context.model,
                self._calls,
                context.compute_format,
                outputs,
                flight.targets,
                samples,
                self.metrics,
            )
            self.scores.append(found)

    def _send_activation(self, micro_batch: int) -> None:
        start = self._recorder.start()
        training = self._under_way.training
        if not training:
            # Without gradients to wait for, a fast stage would pile up what it sends.
            self._outgoing.flush()
        self._outgoing.send(
            *self._leaving_activation.pop(micro_batch),
            training=training,
            samples=self._under_way.samples(micro_batch),
        )
        self._record("send", micro_batch, start)

    def _replay(self, micro_batch: int) -> None:
        start = self._recorder.start()
        flight = self._in_flight[micro_batch]
        number = self._under_way.number(micro_batch)
        outputs = self._stage_pass.forward(flight, number, training=True, keep_graph=True)
        if flight.outgoing is not None:
            self._outgoing.check_again(outputs, flight.outgoing)
        self._record("replay", micro_batch, start)

    def _receive_gradient(self, micro_batch: int) -> None:
        start = self._recorder.start()
        spec = self._in_flight[micro_batch].outgoing
        assert spec is not None
        gradients, loss = self._outgoing.receive_gradients(
            spec,
            self._device,
            samples=self._under_way.samples(micro_batch),
            with_loss=self._under_way.ends_step(micro_batch),
        )
        self._arrived_gradient[micro_batch] = gradients
        if loss is not None:
            self._heard_loss = loss
            if self._hears_loss:
                self._recorder.hear_loss(loss)
        self._record("receive", micro_batch, start)

    def _backward(self, micro_batch: int) -> None:
        flight, arrived, divisor = self._begin_backward(micro_batch)
        start = self._recorder.start()
        gradients = self._stage_pass.backward(flight, arrived, divisor)
        self._leave(micro_batch, flight, gradients)
        self._end_backward(micro_batch)
        self._record("backward", micro_batch, start)

    def _backward_input(self, micro_batch: int) -> None:
        flight, arrived, divisor = self._begin_backward(micro_batch)
        start = self._recorder.start()
        gradients = self._stage_pass.backward_input(flight, arrived, divisor)
        self._leave(micro_batch, flight, gradients)
        self._record(INPUT_GRADIENT, micro_batch, start)

    def _backward_weights(self, micro_batch: int) -> None:
        start = self._recorder.start()
        self._stage_pass.backward_weights(self._in_flight[micro_batch])
        self._end_backward(micro_batch)
        self._record(WEIGHT_GRADIENT, micro_batch, start)

    def _begin_backward(self, micro_batch: int) -> tuple[InFlight, Gradients, float]:
        """Return a micro-batch, the gradients of its outputs, and what its loss is divided by."""
        batch, place = self._under_way.located(micro_batch)
        flight = self._in_flight[micro_batch]
        self._recorder.add_lag(self._under_way.updates - flight.version)
        if flight.loss is not None:
            # Only now, since the forward pass may come before the end of the step before.
            self._recorder.add_loss(flight.loss, batch.size(place))
        arrived = self._arrived_gradient.pop(micro_batch, ())
        return flight, arrived, batch.loss_divisor(place)

    def _leave(self, micro_batch: int, flight: InFlight, gradients: Gradients) -> None:
        if not self._place.is_first:
            assert flight.incoming is not None
            if (factor := self._gradient_shrink) != 1:
                gradients = tuple(None if each is None else each * factor for each in gradients)
            self._leaving_gradient[micro_batch] = flight.incoming, gradients

    def _end_backward(self, micro_batch: int) -> None:
        del self._in_flight[micro_batch]
        self._under_way.in_flight -= 1
        if self._prediction:
            batch, place = self._under_way.located(micro_batch)
            self._prediction.add_gradients(batch.size(place), batch.samples_of_step(place))

    def _send_gradient(self, micro_batch: int) -> None:
        start = self._recorder.start()
        loss = None
        if self._under_way.ends_step(micro_batch):
            loss = self._recorder.step_loss() if self._place.is_last else self._heard_loss
            # What is measured are activations and gradients.
            self.loss_bytes_sent += 0 if loss is None else loss.nbytes
        self._incoming.send_gradients(
            *self._leaving_gradient.pop(micro_batch),
            samples=self._under_way.samples(micro_batch),
            loss=loss,
        )
        self._record("send", micro_batch, start)

    def _record(self, kind: str, number: int, start: object) -> None:
        if self._under_way.training:
            self._recorder.add(kind, number, start)

    _EXECUTES: ClassVar[dict[type, Callable[["StageExecutor", int], None]]] = {
        ReceiveActivation: _receive_activation,
        Forward: _forward,
        Replay: _replay,
        SendActivation: _send_activation,
        ReceiveGradient: _receive_gradient,
        Backward: _backward,
        BackwardInput: _backward_input,
        BackwardWeights: _backward_weights,
        SendGradient: _send_gradient,
    }
