"""Plain training on one device: the baseline of every comparison."""

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.learning_rate import advance, build_scheduler
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.runners.whole_model import WholeModel


class SequentialRunner:
    """Forward, backward and update in turn, gradients accumulated over M micro-batches."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._model = WholeModel(context)
        self._groups = context.group_parameters(self._model.layers)
        parameters = self._model.tied.without_copies(self._model.module.parameters())
        self._optimizer = build_optimizer(parameters, context.settings.optimizer, self._groups)
        self._rules = GradientRules(parameters, context.settings, context.recorder)
        self._scheduler = build_scheduler(
            self._optimizer, context.settings.learning_rate, context.updates
        )

    def train(self, batches: MicroBatches) -> None:
        """Train on these micro-batches."""
        recorder = self._context.recorder
        self._model.module.train()
        self._context.loading.begin(batches, range(len(batches)))
        for step, micro_batches in enumerate(batches.steps()):
            self._model.begin_step(step)
            if step == self._context.agreement.end:
                break
            for n in micro_batches:
                self._model.forward_backward(batches, n)
            start = recorder.start()
            with self._model.tied.update():
                if self._rules.apply():
                    self._optimizer.step()
                    self._scheduler.step()
                else:
                    advance(self._scheduler, 1)
            self._optimizer.zero_grad()
            recorder.add("update", step, start)
            recorder.end_step()

    def evaluate(self, batches: MicroBatches) -> list[MicroBatchScores]:
        """Return the scores of all micro-batches."""
        return self._model.evaluate(batches, range(len(batches)))

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler of the whole model."""
        return TrainedState(
            self._model.layers, self._optimizer, self._scheduler, groups=self._groups
        )

    def bytes_sent(self) -> int:
        """Return 0, since nothing is sent."""
        return 0
