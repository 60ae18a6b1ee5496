"""Executes the programme of one stage: what every instruction does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor

from hpc_lpm.activation import Activation, moved
from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores, score
from hpc_lpm.engine.faults import Faults
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.pipeline.announcements import Announcements
from hpc_lpm.engine.pipeline.boundary import BoundarySpec
from hpc_lpm.engine.pipeline.crossing import IncomingBoundary, OutgoingBoundary
from hpc_lpm.engine.pipeline.gradient_average import GradientAverage
from hpc_lpm.engine.pipeline.prediction import Prediction
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.stage_module import StageModule
from hpc_lpm.engine.pipeline.stage_pass import InFlight, StagePass
from hpc_lpm.engine.pipeline.stepping import Stepping
from hpc_lpm.engine.pipeline.tied_exchange import TiedExchange
from hpc_lpm.engine.pipeline.transport.channel import StageChannels
from hpc_lpm.engine.pipeline.weight_policy import WeightPolicy
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.errors import TrainingError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
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
from hpc_lpm.schedules.stepwise import StepwiseProgramme

Gradients = tuple[Tensor | None, ...]


class StageExecutor:
    """Executes programmes on the layers of one stage, a batch at a time.

    Nothing is drained or synchronised after a batch: what is left to do of it is done with the
    batches after it.

    Args:
        context: of the run.
        module: runs the stage's layers.
        policy: what is done with lagged micro-batches.
        tied: the stage's parameters that are tied to others.
        prediction: predicts the weights of lagged micro-batches, None if these run without.
        average: averages the gradients over the stage's replicas, None without replicas.
        rules: apply to the gradients before an update.
        stepping: takes the optimizer's steps.
    """

    def __init__(
        self,
        context: RunContext,
        module: StageModule,
        policy: WeightPolicy,
        tied: TiedParameters,
        *,
        prediction: Prediction | None,
        average: GradientAverage | None,
        rules: GradientRules,
        stepping: Stepping,
    ) -> None:
        topology = context.topology
        self._context = context
        self._module = module
        self._tied = tied
        self._average = average
        self._rules = rules
        self._stepping = stepping
        self._device = context.device
        self._recorder = context.recorder
        self._is_first_stage = topology.stage == 0
        self._is_last_stage = topology.stage == topology.stages - 1
        self._stage_pass = StagePass(
            module,
            module.calls,
            context.compute_format,
            context.compute_format.loss(context.model.loss) if self._is_last_stage else None,
        )
        self._faults = Faults(
            context.model,
            module.local_layers(),
            context.job.rank,
            stage=topology.stage,
            compute_format=context.compute_format,
        )
        self._policy = policy
        self._prediction = prediction
        self._training = False
        self._version = 0
        self._programme: StepwiseProgramme | None = None
        self._per_step = context.settings.micro_batches
        self._batches: list[MicroBatches] = []
        self._first_batch = self._step = 0
        self._in_flight: dict[int, InFlight] = {}
        self._leaving_activation: dict[int, tuple[BoundarySpec, Activation]] = {}
        self._leaving_gradient: dict[int, tuple[BoundarySpec, Gradients]] = {}
        self._arrived_gradient: dict[int, Gradients] = {}
        self._heard_loss: Tensor | None = None
        self._loss_bytes_sent = 0
        self._scores: list[MicroBatchScores] = []
        self._metrics: Sequence[EvaluationMetric] = ()

    def connect(self, rehearsal: PipelineRehearsal, channels: StageChannels) -> None:
        """Take over the channels to the neighbouring stages, and what rehearsals find to cross."""
        boundaries = rehearsal.boundaries
        self._channels = channels
        self._incoming = IncomingBoundary(boundaries.incoming, channels)
        self._outgoing = OutgoingBoundary(
            boundaries.outgoing, channels, max(self._module.local_layers())
        )
        self._tied_exchange = TiedExchange(self._tied, channels.tied)
        self._announcements = Announcements(
            boundaries,
            channels.agreed,
            self._tied_exchange,
            is_first=self._is_first_stage,
            is_last=self._is_last_stage,
        )

    def heed(self, rehearsal: PipelineRehearsal) -> None:
        """Do in every pass what rehearsals have found to be necessary."""
        self._stage_pass.heed(rehearsal)

    def train(
        self,
        programme_of: Callable[[int], Programme],
        batch: MicroBatches,
        following: MicroBatches | None,
    ) -> int:
        """Train on the next batch and return the bytes this stage sent meanwhile.

        Args:
            programme_of: returns the programme of the training since the pipeline was empty, for a
                number of micro-batches.
            batch: the micro-batches of one optimizer step.
            following: those of the step that comes next, whose messages may be on their way before
                it has begun; None if the pipeline drains after this step.

        Raises:
            TrainingError: if anything fails, naming the micro-batch and, where known, the layer.
        """
        sent_before = self._bytes_sent()
        if self._programme is None:
            self._begin(training=True)
            if self._prediction:
                self._prediction.begin()
            self._programme = StepwiseProgramme(programme_of, self._per_step)
        if self._first_batch + len(self._batches) <= self._step:
            self._take(batch)
        if following is None:
            part = self._programme.rest(self._step, len(batch))
        else:
            part = self._programme.step(self._step)
            self._take(following)
        self._execute(part)
        self._step += 1
        if following is None:
            self._end()
        return self._bytes_sent() - sent_before

    @torch.no_grad()
    def evaluate(
        self, programme: Programme, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Execute a programme of forward passes; the last stage returns the scores.

        Raises:
            TrainingError: if anything fails.
        """
        self._begin(training=False)
        self._scores, self._metrics = [], metrics
        self._batches = [batches]
        self._announcements.evaluation(batches)
        self._execute(programme)
        self._end()
        return self._scores

    def _begin(self, *, training: bool) -> None:
        self._training = training
        self._module.train(training)

    def _bytes_sent(self) -> int:
        averaged = self._average.bytes_sent if self._average else 0
        to_neighbours = sum(channel.bytes_sent for channel in self._channels.senders())
        sent = to_neighbours + self._tied_exchange.bytes_sent + averaged
        return sent - self._loss_bytes_sent

    def _end(self) -> None:
        """Wait until everything has left, and forget what was trained."""
        try:
            for channel in self._channels.senders():
                channel.flush()
            self._tied_exchange.flush()
        except Exception as error:
            raise self._described(error, None) from error
        self._programme = None
        self._batches.clear()
        self._first_batch = self._step = 0

    def _take(self, batch: MicroBatches) -> None:
        self._batches.append(batch)
        self._announcements.training(batch)

    def _located(self, micro_batch: int) -> tuple[MicroBatches, int]:
        """Return the batch that a micro-batch belongs to, and its place there."""
        if not self._training:
            return self._batches[0], micro_batch
        step, place = divmod(micro_batch, self._per_step)
        return self._batches[step - self._first_batch], place

    def _samples(self, micro_batch: int) -> int:
        batch, place = self._located(micro_batch)
        return batch.size(place)

    def _number(self, micro_batch: int) -> int:
        batch, place = self._located(micro_batch)
        return batch.number(place)

    def _ends_step(self, micro_batch: int) -> bool:
        batch, place = self._located(micro_batch)
        return place == len(batch) - 1

    def _execute(self, instructions: Programme) -> None:
        current: Instruction | None = None
        try:
            for current in instructions:
                self._EXECUTES[type(current)](self, *current.arguments)
        except Exception as error:
            raise self._described(error, current) from error

    def _described(self, error: Exception, current: Instruction | None) -> TrainingError:
        if current is None or isinstance(current, Reduce | Update | TiedMessage):
            return self._faults.describe(error, "update" if current else "drain")
        number = current.micro_batch
        computes = isinstance(current, Forward | Replay | Backward)
        flight = self._in_flight.get(number) if computes else None
        batch, place = self._located(number)
        named = f"micro-batch {batch.number(place)}"
        if not self._training:
            named = f"evaluation {named}"
        return self._faults.describe(error, named, flight.inputs if flight else None)

    def _receive_activation(self, micro_batch: int) -> None:
        start = self._recorder.start()
        inputs, spec = self._incoming.receive(
            training=self._training, samples=self._samples(micro_batch), device=self._device
        )
        self._in_flight[micro_batch] = InFlight(inputs, incoming=spec)
        self._record("receive", micro_batch, start)

    def _forward(self, micro_batch: int) -> None:
        self._load(micro_batch)
        start = self._recorder.start()
        flight = self._in_flight[micro_batch]
        lagged = self._programme is not None and self._programme.is_lagged(micro_batch)
        keep_graph = not (lagged and self._policy.replays)
        with self._around_forward(micro_batch, lagged=lagged):
            outputs = self._stage_pass.forward(
                flight,
                self._number(micro_batch),
                keep_graph=keep_graph,
                lagged=lagged,
            )
        if not self._is_last_stage:
            flight.outgoing = self._outgoing.check(
                outputs,
                training=self._training,
                samples=self._samples(micro_batch),
            )
            self._leaving_activation[micro_batch] = flight.outgoing, outputs
        if not self._training:
            self._score(self._in_flight[micro_batch], outputs, self._samples(micro_batch))
            del self._in_flight[micro_batch]
            return
        self._record("forward", micro_batch, start)
        flight.version = self._version
        self._recorder.add_in_flight(len(self._in_flight))

    def _load(self, micro_batch: int) -> None:
        start = self._recorder.start()
        batch, place = self._located(micro_batch)
        if self._is_first_stage:
            loaded = self._context.loading.inputs(batch, place)
            inputs = moved(loaded, self._device)
            arranged = self._context.compute_format.arranged(inputs)
            self._in_flight[micro_batch] = InFlight(arranged)
        if self._is_last_stage:
            loaded = self._context.loading.targets(batch, place)
            targets = moved(loaded, self._device)
            self._in_flight[micro_batch].targets = targets
        self._record("load", micro_batch, start)

    @contextmanager
    def _around_forward(self, micro_batch: int, *, lagged: bool) -> Iterator[None]:
        step = micro_batch // self._per_step
        predicted = self._training and self._prediction and self._prediction.is_ahead(step)
        with ExitStack() as around:
            # Copies of another stage's weights are predicted where this stage does not lag itself.
            if lagged or predicted:
                around.enter_context(self._policy.lagged_forward())
            if predicted and self._prediction:
                around.enter_context(self._prediction.applied(step))
            yield

    def _score(self, flight: InFlight, outputs: Activation, samples: int) -> None:
        if self._is_last_stage:
            context = self._context
            calls, form = self._module.calls, context.compute_format
            found = score(
                context.model, calls, form, outputs, flight.targets, samples, self._metrics
            )
            self._scores.append(found)

    def _send_activation(self, micro_batch: int) -> None:
        start = self._recorder.start()
        if not self._training:
            # Without gradients to wait for, a fast stage would pile up what it sends.
            self._outgoing.flush()
        self._outgoing.send(
            *self._leaving_activation.pop(micro_batch),
            training=self._training,
            samples=self._samples(micro_batch),
        )
        self._record("send", micro_batch, start)

    def _replay(self, micro_batch: int) -> None:
        start = self._recorder.start()
        flight = self._in_flight[micro_batch]
        outputs = self._stage_pass.forward(flight, self._number(micro_batch), keep_graph=True)
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
            samples=self._samples(micro_batch),
            with_loss=self._ends_step(micro_batch),
        )
        self._arrived_gradient[micro_batch] = gradients
        if loss is not None:
            self._heard_loss = loss
            self._recorder.hear_loss(loss)
        self._record("receive", micro_batch, start)

    def _backward(self, micro_batch: int) -> None:
        batch, place = self._located(micro_batch)
        flight = self._in_flight[micro_batch]
        self._recorder.add_lag(self._version - flight.version)
        if flight.loss is not None:
            # Only now, since the forward pass may come before the end of the step before.
            self._recorder.add_loss(flight.loss, self._samples(micro_batch))
        start = self._recorder.start()
        gradients = self._stage_pass.backward(
            flight,
            self._arrived_gradient.pop(micro_batch, ()),
            batch.loss_divisor(place),
        )
        del self._in_flight[micro_batch]
        if self._prediction:
            self._prediction.add_gradients(batch.size(place), batch.samples_of_step(place))
        if not self._is_first_stage:
            assert flight.incoming is not None
            self._leaving_gradient[micro_batch] = flight.incoming, gradients
        self._record("backward", micro_batch, start)

    def _send_gradient(self, micro_batch: int) -> None:
        start = self._recorder.start()
        loss = None
        if self._ends_step(micro_batch):
            loss = self._recorder.step_loss() if self._is_last_stage else self._heard_loss
            # What is measured are activations and gradients.
            self._loss_bytes_sent += 0 if loss is None else loss.nbytes
        self._incoming.send_gradients(
            *self._leaving_gradient.pop(micro_batch),
            samples=self._samples(micro_batch),
            loss=loss,
        )
        self._record("send", micro_batch, start)

    def _reduce(self, step: int) -> None:
        if self._average:
            self._tied.collect_gradients()
            self._average.start()

    def _update(self, step: int) -> None:
        if self._average:
            start = self._recorder.start()
            self._average.finish(self._release_sent)
            self._record("receive", step, start)
        start = self._recorder.start()
        self._tied.collect_gradients()
        stepping = self._stepping
        takes = self._rules.apply()
        predicting = (
            self._prediction.update(skipped=not takes) if self._prediction else nullcontext()
        )
        if self._rules.waits:
            self._record("receive", step, start)
            start = self._recorder.start()
        with predicting, self._policy.update(), self._tied.update():
            stepping.take_step() if takes else stepping.skip_step()
        self._version += 1
        if self._average:
            self._average.begin_step()
        self._record("update", step, start)
        self._recorder.end_step()
        # Nothing of this step is in flight any more.
        del self._batches[0]
        self._first_batch += 1

    def _release_sent(self) -> None:
        for channel in self._channels.senders():
            channel.release_sent()

    def _send_tied_gradient(self, step: int, stage: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.send_gradient(stage)
        self._record("send", step, start)

    def _receive_tied_gradient(self, step: int, stage: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.receive_gradient(stage)
        self._record("receive", step, start)

    def _send_tied_weights(self, step: int, stage: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.send_weights(stage)
        self._record("send", step, start)

    def _receive_tied_weights(self, step: int, stage: int) -> None:
        start = self._recorder.start()
        predicting = self._prediction.update_from(stage) if self._prediction else nullcontext()
        with predicting, self._policy.update():
            self._tied_exchange.receive_weights(stage)
        self._record("receive", step, start)

    def _record(self, kind: str, number: int, start: object) -> None:
        if self._training:
            self._recorder.add(kind, number, start)

    _EXECUTES: ClassVar[dict[type, Callable[..., None]]] = {
        ReceiveActivation: _receive_activation,
        Forward: _forward,
        Replay: _replay,
        SendActivation: _send_activation,
        ReceiveGradient: _receive_gradient,
        Backward: _backward,
        SendGradient: _send_gradient,
        SendTiedGradient: _send_tied_gradient,
        ReceiveTiedGradient: _receive_tied_gradient,
        SendTiedWeights: _send_tied_weights,
        ReceiveTiedWeights: _receive_tied_weights,
        Reduce: _reduce,
        Update: _update,
    }
