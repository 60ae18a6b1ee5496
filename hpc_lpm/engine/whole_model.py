"""The uncut model on one device, as sequential training and every data-parallel replica use it."""

from collections.abc import Iterable

import torch
from torch import nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.faults import Faults, NonFiniteLossError
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.models.dropout import set_dropout_stream


class WholeModel:
    """All layers on this rank's device, passed forward and backward a micro-batch at a time."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        settings, model = context.settings, context.model
        self.layers = {
            index: model.build_layer(index, settings.seed).to(context.device)
            for index in range(len(model.layers))
        }
        self.module = nn.Sequential(*self.layers.values())
        self._faults = Faults(model, self.layers, context.job.rank)

    def forward_backward(self, batches: MicroBatches, n: int, accumulated: int) -> None:
        """Add the gradients of micro-batch `n`, whose loss counts 1 / `accumulated`.

        Raises:
            TrainingError: if a layer fails or the loss is not finite.
        """
        try:
            self._forward_backward(batches, n, accumulated)
        except Exception as error:
            named = f"micro-batch {batches.first_index + n}"
            # A replica's weights have hooks that another backward pass would set off.
            searchable = self._context.job.size == 1 or isinstance(error, NonFiniteLossError)
            inputs = batches.inputs(n).to(self._context.device) if searchable else None
            raise self._faults.describe(error, named, inputs) from error

    def _forward_backward(self, batches: MicroBatches, n: int, accumulated: int) -> None:
        context, recorder = self._context, self._context.recorder
        start = recorder.start()
        inputs = batches.inputs(n).to(context.device)
        targets = batches.targets(n).to(context.device)
        recorder.add("load", n, start)
        for index, layer in self.layers.items():
            set_dropout_stream(layer, context.settings.seed, index, batches.first_index + n)
        start = recorder.start()
        loss = context.model.loss(self.module(inputs), targets)
        recorder.add("forward", n, start)
        recorder.add_loss(loss)
        start = recorder.start()
        (loss / accumulated).backward()  # type: ignore[no-untyped-call]
        recorder.add("backward", n, start)

    @torch.no_grad()
    def count_correct(self, batches: MicroBatches, numbers: Iterable[int]) -> int:
        """Return the right predictions among these micro-batches."""
        device = self._context.device
        self.module.eval()
        correct = 0
        for n in numbers:
            outputs = self.module(batches.inputs(n).to(device))
            correct += int(self._context.model.correct(outputs, batches.targets(n).to(device)))
        return correct
