"""Plain training on one device: the baseline of every comparison."""

import torch
from torch import nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.faults import Faults
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.models.dropout import set_dropout_stream


class SequentialRunner:
    """Forward, backward and update in turn, gradients accumulated over M micro-batches."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        settings, model = context.settings, context.model
        self._layers = [
            model.build_layer(index, settings.seed).to(context.device)
            for index in range(len(model.layers))
        ]
        self._faults = Faults(model, self.layers(), context.job.rank)
        self._module = nn.Sequential(*self._layers)
        self._optimizer = build_optimizer(self._module.parameters(), settings.optimizer)

    def train(self, batches: MicroBatches) -> None:
        """Train on these micro-batches."""
        self._module.train()
        for n in range(len(batches)):
            try:
                self._train_one(batches, n)
            except Exception as error:
                named = f"micro-batch {batches.first_index + n}"
                inputs = batches.inputs(n).to(self._context.device)
                raise self._faults.describe(error, named, inputs) from error

    def _train_one(self, batches: MicroBatches, n: int) -> None:
        context, recorder = self._context, self._context.recorder
        accumulated = context.settings.micro_batches
        start = recorder.start()
        inputs = batches.inputs(n).to(context.device)
        targets = batches.targets(n).to(context.device)
        recorder.add("load", n, start)
        for index, layer in enumerate(self._layers):
            set_dropout_stream(layer, context.settings.seed, index, batches.first_index + n)
        start = recorder.start()
        loss = context.model.loss(self._module(inputs), targets)
        recorder.add("forward", n, start)
        recorder.add_loss(loss)
        start = recorder.start()
        (loss / accumulated).backward()  # type: ignore[no-untyped-call]
        recorder.add("backward", n, start)
        if (n + 1) % accumulated == 0:
            start = recorder.start()
            self._optimizer.step()
            self._optimizer.zero_grad()
            recorder.add("update", n, start)
            recorder.end_step()

    @torch.no_grad()
    def evaluate(self, batches: MicroBatches) -> int:
        """Return the number of right predictions."""
        device = self._context.device
        self._module.eval()
        correct = 0
        for n in range(len(batches)):
            outputs = self._module(batches.inputs(n).to(device))
            correct += int(self._context.model.correct(outputs, batches.targets(n).to(device)))
        return correct

    def layers(self) -> dict[int, nn.Module]:
        """Return all layers."""
        return dict(enumerate(self._layers))

    def bytes_sent(self) -> int:
        """Nothing is sent."""
        return 0
