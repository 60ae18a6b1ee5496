"""Data parallelism with Horovod: every rank holds the whole model, gradients are averaged."""

import importlib
import os
from typing import Any

import torch
from torch import nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.faults import Faults, NonFiniteLossError
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.runner import RunContext
from hpc_lpm.errors import InputError
from hpc_lpm.models.dropout import set_dropout_stream

BEST_SETTINGS = {
    # Horovod's background thread wakes up this often [ms]; at its default of 1 it takes a core
    # that has but one thread away from training.
    "HOROVOD_CYCLE_TIME": "5",
    "HOROVOD_CPU_OPERATIONS": "MPI",
}


class HorovodRunner:
    """One replica; of the M micro-batches of a step, rank r of R trains those with n mod R = r."""

    def __init__(self, context: RunContext) -> None:
        for name, value in BEST_SETTINGS.items():
            os.environ.setdefault(name, value)
        hvd = import_horovod()
        hvd.init()
        settings, model = context.settings, context.model
        self._hvd = hvd
        self._context = context
        self._local_micro_batches = settings.micro_batches // context.job.size
        self._layers = [
            model.build_layer(index, settings.seed).to(context.device)
            for index in range(len(model.layers))
        ]
        self._faults = Faults(model, self.layers(), context.job.rank)
        self._module = nn.Sequential(*self._layers)
        self._optimizer = hvd.DistributedOptimizer(
            build_optimizer(self._module.parameters(), settings.optimizer),
            named_parameters=self._module.named_parameters(),
            backward_passes_per_step=self._local_micro_batches,
        )
        self._gradient_bytes = sum(p.numel() * p.element_size() for p in self._module.parameters())
        self._steps = 0

    def train(self, batches: MicroBatches) -> None:
        """Train on this rank's share of these micro-batches."""
        job = self._context.job
        self._module.train()
        for n in range(job.rank, len(batches), job.size):
            try:
                self._train_one(batches, n)
            except Exception as error:
                # Another backward pass would set off Horovod's hooks on the weights.
                searchable = isinstance(error, NonFiniteLossError)
                inputs = batches.inputs(n).to(self._context.device) if searchable else None
                named = f"micro-batch {batches.first_index + n}"
                raise self._faults.describe(error, named, inputs) from error

    def _train_one(self, batches: MicroBatches, n: int) -> None:
        context, recorder = self._context, self._context.recorder
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
        (loss / self._local_micro_batches).backward()  # type: ignore[no-untyped-call]
        recorder.add("backward", n, start)
        if n % context.settings.micro_batches >= context.settings.micro_batches - context.job.size:
            self._update(n)

    def _update(self, n: int) -> None:
        recorder = self._context.recorder
        start = recorder.start()
        self._optimizer.synchronize()
        recorder.add("receive", n, start)
        start = recorder.start()
        with self._optimizer.skip_synchronize():
            self._optimizer.step()
        self._optimizer.zero_grad()
        recorder.add("update", n, start)
        recorder.end_step()
        self._steps += 1

    @torch.no_grad()
    def evaluate(self, batches: MicroBatches) -> int:
        """Return the right predictions among this rank's share."""
        context = self._context
        self._average_buffers()
        self._module.eval()
        correct = 0
        for n in range(context.job.rank, len(batches), context.job.size):
            outputs = self._module(batches.inputs(n).to(context.device))
            targets = batches.targets(n).to(context.device)
            correct += int(context.model.correct(outputs, targets))
        return correct

    def layers(self) -> dict[int, nn.Module]:
        """Return all layers; they are the same on every rank."""
        return dict(enumerate(self._layers))

    def bytes_sent(self) -> int:
        """Return what a ring all-reduce of the gradients sends: 2 (R - 1) / R of them a step."""
        ranks = self._context.job.size
        return self._steps * self._gradient_bytes * 2 * (ranks - 1) // ranks

    def _average_buffers(self) -> None:
        # Replicas see different samples, so their running statistics differ until averaged.
        for name, buffer in sorted(self._module.named_buffers()):
            if buffer.is_floating_point():
                buffer.copy_(self._hvd.allreduce(buffer, name=name))


def import_horovod() -> Any:
    """Return `horovod.torch`.

    Raises:
        InputError: if it is not installed.
    """
    try:
        # Open MPI's library must be in the process before Horovod's extension looks for it.
        importlib.import_module("mpi4py.MPI")
        return importlib.import_module("horovod.torch")
    except ImportError as error:
        raise InputError(
            f"--strategy horovod: Horovod cannot be imported ({error}): run `make setup`, which "
            "builds it, or choose another strategy."
        ) from None
