"""Trains with Horovod, which averages the gradients of data-parallel ranks over MPI."""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from hpc_lpm.engine.runners.data_parallel import DataParallelRunner
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.strategies.horovod import HorovodOptions
from hpc_lpm.engine.waits import WAITS
from hpc_lpm.errors import InputError, InterruptedTrainingError
from hpc_lpm.native_waits import WaitGuard

_AVERAGED = (torch.float32, torch.float64, torch.float16)


class HorovodRunner(DataParallelRunner):
    """One replica, whose gradients Horovod averages."""

    def __init__(self, context: RunContext) -> None:
        own = context.settings.own
        assert isinstance(own, HorovodOptions)
        if own.cycle_time_milliseconds is not None:
            os.environ["HOROVOD_CYCLE_TIME"] = f"{own.cycle_time_milliseconds:g}"
        if own.fusion_megabytes is not None:
            os.environ["HOROVOD_FUSION_THRESHOLD"] = str(round(own.fusion_megabytes * 2**20))
        self._hvd = import_horovod()
        job = context.job
        # Horovod waits for ever.
        self._guard = WaitGuard(job.limit_seconds, job.rank, "a call of Horovod", WAITS.blame)
        context.resources.callback(self._guard.close)
        with self._waiting():
            self._hvd.init()
        context.resources.push(_shut_down_if_interrupted)
        super().__init__(context, wrap=self._distributed)
        self._optimizer: Any = self._updates.optimizer
        self._learning = [parameter for parameter in self._parameters if parameter.requires_grad]

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Surround calls in which Horovod waits for the other ranks."""
        with WAITS.in_library(), self._guard.bounded():
            yield

    def _distributed(self, alone: torch.optim.Optimizer) -> Any:
        context = self._context
        _check_types(self._model.layers, context)
        made = self._hvd.DistributedOptimizer(
            alone,
            named_parameters=self._model.module.named_parameters(),
            backward_passes_per_step=context.settings.micro_batches // context.job.size,
        )
        # Horovod builds a new optimizer without the options, so state that depends on them is taken
        # over from ours.
        made.state.update(alone.state)
        return made

    def _around_update(self) -> AbstractContextManager[object]:
        around: AbstractContextManager[object] = self._optimizer.skip_synchronize()
        return around

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
        average = self._hvd.Average
        with self._waiting():
            handle = self._hvd.allreduce_async_(flags, name="gradients present", op=average)
            self._optimizer.synchronize()
            self._hvd.synchronize(handle)
        for parameter, anywhere in zip(self._learning, flags.tolist(), strict=True):
            if not anywhere:
                parameter.grad = None

    @torch.no_grad()
    def _average_buffers(self) -> None:
        for name, buffer in sorted(self._model.module.named_buffers()):
            if buffer.is_floating_point():
                accepted = buffer if buffer.dtype in _AVERAGED else buffer.float()
                with self._waiting():
                    averaged = self._hvd.allreduce(accepted, name=name)
                buffer.copy_(averaged)


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
