"""Plain training on one device: the baseline of every comparison."""

from torch import nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.engine.whole_model import WholeModel


class SequentialRunner:
    """Forward, backward and update in turn, gradients accumulated over M micro-batches."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._model = WholeModel(context)
        self._optimizer = build_optimizer(
            self._model.module.parameters(), context.settings.optimizer
        )

    def train(self, batches: MicroBatches) -> None:
        """Train on these micro-batches."""
        recorder, accumulated = self._context.recorder, self._context.settings.micro_batches
        self._model.module.train()
        for n in range(len(batches)):
            self._model.forward_backward(batches, n, accumulated)
            if (n + 1) % accumulated == 0:
                start = recorder.start()
                self._optimizer.step()
                self._optimizer.zero_grad()
                recorder.add("update", n, start)
                recorder.end_step()

    def evaluate(self, batches: MicroBatches) -> int:
        """Return the number of right predictions."""
        return self._model.count_correct(batches, range(len(batches)))

    def layers(self) -> dict[int, nn.Module]:
        """Return all layers."""
        return self._model.layers

    def bytes_sent(self) -> int:
        """Nothing is sent."""
        return 0
