"""Plain training on one device: the baseline of every comparison."""

from collections.abc import Sequence

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.runners.whole_model import WholeModel
from hpc_lpm.models.evaluation_metrics import EvaluationMetric


class SequentialRunner:
    """Forward, backward and update in turn, gradients accumulated over M micro-batches."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._model = WholeModel(context)
        parameters = self._model.tied.without_copies(self._model.module.parameters())
        self._updates = context.updating.build(parameters, self._model.layers)
        self._rules = GradientRules([parameters], context.settings, context.recorder)

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Find mistakes of the model before it trains."""
        self._model.rehearse(passes, metrics)

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on a batch; what follows changes nothing."""
        recorder = self._context.recorder
        self._model.module.train()
        for n in range(len(batch)):
            self._model.forward_backward(batch, n)
        start = recorder.start()
        with self._model.tied.update():
            if self._rules.apply():
                self._updates.optimizer.step()
                self._updates.scheduler.step()
            else:
                advance(self._updates.scheduler, 1)
        self._updates.optimizer.zero_grad()
        recorder.add("update", recorder.step, start)
        recorder.end_step()

    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores of all micro-batches."""
        return self._model.evaluate(batches, range(len(batches)), metrics)

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of the whole model."""
        return TrainedState(
            self._model.layers,
            self._updates.optimizer,
            self._updates.scheduler,
            groups=self._updates.groups,
        )

    def bytes_sent(self) -> int:
        """Return 0, since nothing is sent."""
        return 0
