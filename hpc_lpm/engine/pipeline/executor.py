"""Executes the programme of one rank on the stages that it holds."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import ClassVar

import torch

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.faults import Faults
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.pipeline.carried_stages import CarriedStages
from hpc_lpm.engine.pipeline.gradient_average import GradientAverage
from hpc_lpm.engine.pipeline.prediction import Prediction
from hpc_lpm.engine.pipeline.rehearsal import PipelineRehearsal
from hpc_lpm.engine.pipeline.stage_executor import StageExecutor
from hpc_lpm.engine.pipeline.tied_exchange import TiedExchange
from hpc_lpm.engine.pipeline.transport.channel import Channel, RankChannels
from hpc_lpm.engine.pipeline.under_way import BatchesUnderWay
from hpc_lpm.engine.pipeline.weight_policy import WeightPolicy
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.ties import TiedParameters
from hpc_lpm.models.evaluation_metrics import EvaluationMetric
from hpc_lpm.schedules.instructions import (
    Instruction,
    Programme,
    ReceiveTiedGradient,
    ReceiveTiedWeights,
    Reduce,
    SendTiedGradient,
    SendTiedWeights,
    TiedMessage,
    Update,
)
from hpc_lpm.schedules.stepwise import StepwiseProgramme


class ProgrammeExecutor:
    """Executes programmes on the stages that one rank holds, a batch at a time.

    Nothing is drained or synchronised after a batch: what is left to do of it is done with the
    batches after it. All stages of the rank are updated together.

    Args:
        context: of the run.
        carried: the stages, and what takes the optimizer's steps.
        policy: what is done with lagged micro-batches.
        tied: the rank's parameters that are tied to others.
        prediction: predicts the weights of lagged micro-batches, None if these run without.
        average: averages the gradients over the stages' replicas, None without replicas.
        rules: apply to the gradients before an update.
        gradient_shrink: the factor of the gradients that leave a stage.
    """

    def __init__(
        self,
        context: RunContext,
        carried: CarriedStages,
        policy: WeightPolicy,
        tied: TiedParameters,
        *,
        prediction: Prediction | None,
        average: GradientAverage | None,
        rules: GradientRules,
        gradient_shrink: float,
    ) -> None:
        self._module = carried.module
        self._stepping = carried.stepping
        self._policy = policy
        self._tied = tied
        self._prediction = prediction
        self._average = average
        self._rules = rules
        self._recorder = context.recorder
        self._under_way = BatchesUnderWay(context.settings.micro_batches)
        last = carried.stages[-1]
        self._stages = [
            # The rank's last stage is the first of them to hear of a loss, unless it computes it.
            StageExecutor(
                context,
                stage,
                self._under_way,
                policy,
                prediction,
                hears_loss=stage is last,
                gradient_shrink=gradient_shrink,
            )
            for stage in carried.stages
        ]
        self._faults = Faults(
            context.model,
            carried.module.local_layers(),
            context.job.rank,
            stage=carried.stages[0].place.stage,
            compute_format=context.compute_format,
        )
        self._step = 0

    def connect(self, rehearsal: PipelineRehearsal, channels: RankChannels) -> None:
        """Take over the channels to other ranks, and what rehearsals find to cross."""
        self._channels = channels
        self._tied_exchange = TiedExchange(self._tied, channels.tied)
        connecting = zip(self._stages, rehearsal.stages, channels.stages, strict=True)
        for stage, rehearsed, of_stage in connecting:
            stage.connect(rehearsed, of_stage)

    def heed(self, rehearsal: PipelineRehearsal) -> None:
        """Do in every pass what rehearsals have found to be necessary."""
        for stage, rehearsed in zip(self._stages, rehearsal.stages, strict=True):
            stage.heed(rehearsed)

    def train(
        self,
        programme_of: Callable[[int], Programme],
        batch: MicroBatches,
        following: MicroBatches | None,
    ) -> int:
        """Train on the next batch and return the bytes this rank sent meanwhile.

        Args:
            programme_of: returns the programme of the training since the pipeline was empty, for a
                number of micro-batches.
            batch: the micro-batches of one optimizer step.
            following: those of the step that comes next, whose messages may be on their way before
                it has begun; None if the pipeline drains after this step.

        Raises:
            TrainingError: if anything fails, naming the micro-batch and, where known, the layer.
        """
        under_way = self._under_way
        sent_before = self._bytes_sent()
        programme = under_way.programme
        if programme is None:
            self._begin(training=True)
            if self._prediction:
                self._prediction.begin()
            programme = StepwiseProgramme(programme_of, under_way.per_step)
            under_way.programme = programme
        if len(under_way) <= self._step:
            self._take(batch)
        if following is None:
            part = programme.rest(self._step, len(batch))
        else:
            part = programme.step(self._step)
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
        """Execute a programme of forward passes; the rank of the last stage returns the scores.

        Raises:
            TrainingError: if anything fails.
        """
        self._begin(training=False)
        for stage in self._stages:
            stage.scores, stage.metrics = [], metrics
        self._under_way.take(batches)
        for stage in self._stages:
            stage.expect(batches)
        self._execute(programme)
        self._end()
        return [score for stage in self._stages for score in stage.scores]

    def _begin(self, *, training: bool) -> None:
        self._under_way.training = training
        self._module.train(training)

    def _senders(self) -> list[Channel]:
        return [sender for stage in self._channels.stages for sender in stage.senders()]

    def _bytes_sent(self) -> int:
        averaged = self._average.bytes_sent if self._average else 0
        to_neighbours = sum(channel.bytes_sent for channel in self._senders())
        of_losses = sum(stage.loss_bytes_sent for stage in self._stages)
        return to_neighbours + self._tied_exchange.bytes_sent + averaged - of_losses

    def _end(self) -> None:
        """Wait until everything has left, and forget what was trained."""
        try:
            for channel in self._senders():
                channel.flush()
            self._tied_exchange.flush()
        except Exception as error:
            raise self._faults.describe(error, "drain") from error
        self._under_way.clear()
        self._step = 0

    def _take(self, batch: MicroBatches) -> None:
        self._under_way.take(batch)
        for stage in self._stages:
            stage.expect(batch)
        self._tied_exchange.expect_step()

    def _execute(self, instructions: Programme) -> None:
        for instruction in instructions:
            if isinstance(instruction, Reduce | Update | TiedMessage):
                self._execute_of_step(instruction)
            else:
                self._stages[instruction.chunk].execute(instruction)

    def _execute_of_step(self, instruction: Instruction) -> None:
        try:
            self._EXECUTES[type(instruction)](self, *instruction.arguments)
        except Exception as error:
            raise self._faults.describe(error, "update") from error

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
        if self._average:
            self._average.begin_step()
        self._record("update", step, start)
        self._recorder.end_step()
        self._under_way.end_step()

    def _release_sent(self) -> None:
        for channel in self._senders():
            channel.release_sent()

    def _send_tied_gradient(self, step: int, device: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.send_gradient(device)
        self._record("send", step, start)

    def _receive_tied_gradient(self, step: int, device: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.receive_gradient(device)
        self._record("receive", step, start)

    def _send_tied_weights(self, step: int, device: int) -> None:
        start = self._recorder.start()
        self._tied_exchange.send_weights(device)
        self._record("send", step, start)

    def _receive_tied_weights(self, step: int, device: int) -> None:
        start = self._recorder.start()
        predicting = self._prediction.update_from(device) if self._prediction else nullcontext()
        with predicting, self._policy.update():
            self._tied_exchange.receive_weights(device)
        self._record("receive", step, start)

    def _record(self, kind: str, number: int, start: object) -> None:
        if self._under_way.training:
            self._recorder.add(kind, number, start)

    _EXECUTES: ClassVar[dict[type, Callable[..., None]]] = {
        SendTiedGradient: _send_tied_gradient,
        ReceiveTiedGradient: _receive_tied_gradient,
        SendTiedWeights: _send_tied_weights,
        ReceiveTiedWeights: _receive_tied_weights,
        Reduce: _reduce,
        Update: _update,
    }
