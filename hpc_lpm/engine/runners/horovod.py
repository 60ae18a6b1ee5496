"""Trains with Horovod: every rank holds the whole model, and gradients are averaged."""

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.runners.whole_model import WholeModel
from hpc_lpm.engine.strategies.horovod import HorovodOptions
from hpc_lpm.errors import InputError, InterruptedTrainingError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric

_AVERAGED = (torch.float32, torch.float64, torch.float16)


class HorovodRunner:
    """One replica: of a step's M micro-batches, rank r of R trains those with n mod R = r."""

    def __init__(self, context: RunContext) -> None:
        own = context.settings.own
        assert isinstance(own, HorovodOptions)
        if own.cycle_time_milliseconds is not None:
            os.environ["HOROVOD_CYCLE_TIME"] = f"{own.cycle_time_milliseconds:g}"
        hvd = import_horovod()
        hvd.init()
        context.resources.push(_shut_down_if_interrupted)
        settings = context.settings
        self._hvd = hvd
        self._context = context
        self._model = WholeModel(context)
        parameters = list(self._model.module.parameters())
        _check_types(self._model.layers, context)
        self._updates = context.updating.build(
            parameters, self._model.layers, wrap=self._distributed
        )
        self._optimizer: Any = self._updates.optimizer
        self._rules = GradientRules(
            self._model.tied.without_copies(parameters), settings, context.recorder
        )
        self._learning = [parameter for parameter in parameters if parameter.requires_grad]
        self._gradient_bytes = sum(p.numel() * p.element_size() for p in parameters)
        self._steps = 0

    def _distributed(self, alone: torch.optim.Optimizer) -> Any:
        context = self._context
        made = self._hvd.DistributedOptimizer(
            alone,
            named_parameters=self._model.module.named_parameters(),
            backward_passes_per_step=context.settings.micro_batches // context.job.size,
        )
        # Horovod builds a new optimizer without the options, so state that depends on them is taken
        # over from ours.
        made.state.update(alone.state)
        return made

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Find mistakes of the model before it trains."""
        self._model.rehearse(passes, metrics)

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on this rank's share of a batch; what follows changes nothing."""
        self._model.module.train()
        for n in self._share(range(len(batch))):
            self._model.forward_backward(batch, n, self._context.job.size)
        self._update()

    def _share(self, micro_batches: range) -> range:
        return micro_batches[self._context.job.rank :: self._context.job.size]

    def _update(self) -> None:
        recorder = self._context.recorder
        step = recorder.step
        start = recorder.start()
        self._average_gradients()
        recorder.add("receive", step, start)
        start = recorder.start()
        with self._model.tied.update(), self._optimizer.skip_synchronize():
            if self._rules.apply():
                self._optimizer.step()
                self._updates.scheduler.step()
            else:
                advance(self._updates.scheduler, 1)
        self._optimizer.zero_grad()
        recorder.add("update", step, start)
        recorder.end_step()
        self._steps += 1

    def _average_gradients(self) -> None:
        """Wait for the averages, and let parameters that no rank has used have no gradient.

        Horovod averages zeros for a parameter without a gradient, which weight decay and momentum
        would then move.
        """
        if self._context.job.size == 1:
            return
        present = [float(parameter.grad is not None) for parameter in self._learning]
        # With the same operation and type as most gradients, so that Horovod sends it along.
        flags = torch.tensor(present, device=self._context.device)
        handle = self._hvd.allreduce_async_(flags, name="gradients present", op=self._hvd.Average)
        self._optimizer.synchronize()
        self._hvd.synchronize(handle)
        for parameter, anywhere in zip(self._learning, flags.tolist(), strict=True):
            if not anywhere:
                parameter.grad = None

    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores of this rank's share."""
        self._average_buffers()
        return self._model.evaluate(batches, self._share(range(len(batches))), metrics)

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler, which are the same on every rank."""
        rank = self._context.job.rank
        return TrainedState(
            self._model.layers,
            self._optimizer,
            self._updates.scheduler,
            rank,
            self._updates.groups,
        )

    def bytes_sent(self) -> int:
        """Return what ring all-reduces send: 2 (R - 1) / R times the gradients' bytes per step."""
        ranks = self._context.job.size
        return self._steps * self._gradient_bytes * 2 * (ranks - 1) // ranks

    @torch.no_grad()
    def _average_buffers(self) -> None:
        # Replicas see different samples, so their running statistics differ until averaged.
        for name, buffer in sorted(self._model.module.named_buffers()):
            if buffer.is_floating_point():
                accepted = buffer if buffer.dtype in _AVERAGED else buffer.float()
                buffer.copy_(self._hvd.allreduce(accepted, name=name))


def _check_types(layers: Mapping[int, nn.Module], context: RunContext) -> None:
    for index, layer in layers.items():
        for name, parameter in layer.named_parameters():
            if parameter.requires_grad and parameter.dtype not in _AVERAGED:
                raise InputError(
                    f"--strategy {context.settings.strategy} was given model {context.model.name}, "
                    f"whose layer {index} {context.model.layers[index].name} has the parameter "
                    f"{name} of type {str(parameter.dtype).removeprefix('torch.')}, which Horovod "
                    "cannot average: use another type or another strategy."
                )


def _shut_down_if_interrupted(kind: type[BaseException] | None, *_: object) -> None:
    """Stop Horovod's thread before MPI ends, if a signal has interrupted the training.

    Where all went well, Horovod stops it by itself; where a rank has failed, stopping could wait
    for that rank.
    """
    if kind is not None and issubclass(kind, InterruptedTrainingError):
        import_horovod().shutdown()


def import_horovod() -> Any:
    """Import and return `horovod.torch`.

    Raises:
        InputError: if Horovod cannot be imported.
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
