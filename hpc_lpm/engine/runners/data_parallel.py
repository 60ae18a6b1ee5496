"""What engines of data parallelism share: every rank holds the whole model, gradients are averaged.

Of a step's M micro-batches, rank r of R trains those with n mod R = r.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed
from torch import nn

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.gradient_rules import GradientRules
from hpc_lpm.engine.learning_rate import advance
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.runners.whole_model import WholeModel
from hpc_lpm.engine.updating import Wrap, as_it_is
from hpc_lpm.models.evaluation_metrics import EvaluationMetric


class DataParallelRunner(ABC):
    """One replica, whose gradients an engine averages with those of the others."""

    def __init__(self, context: RunContext, *, wrap: Wrap = as_it_is) -> None:
        """Build the model and what updates it; `wrap` makes the optimizer the engine's own."""
        self._context = context
        self._model = WholeModel(context)
        self._parameters = list(self._model.module.parameters())
        self._updates = context.updating.build(self._parameters, self._model.layers, wrap=wrap)
        self._rules = GradientRules(
            [self._model.tied.without_copies(self._parameters)], context.settings, context.recorder
        )
        self._gradient_bytes = sum(p.numel() * p.element_size() for p in self._parameters)
        self._steps = 0

    @abstractmethod
    def _average_gradients(self) -> None:
        """Wait until the gradients of the step are the averages over all ranks."""

    @abstractmethod
    def _average_buffers(self) -> None:
        """Average running statistics: replicas see different samples, so that theirs differ."""

    def _backward_of(self, n: int, last: int) -> AbstractContextManager[object]:
        """Surround the passes of micro-batch n; `last` is the last one of this rank's share."""
        return nullcontext()

    def _around_update(self) -> AbstractContextManager[object]:
        """Surround the optimizer's step."""
        return nullcontext()

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Find mistakes of the model before it trains."""
        self._model.rehearse(passes, metrics)

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on this rank's share of a batch; what follows changes nothing."""
        self._model.module.train()
        share = self._share(range(len(batch)))
        for n in share:
            with self._backward_of(n, share[-1]):
                self._model.forward_backward(batch, n, self._context.job.size)
        self._update()

    def _share(self, micro_batches: range) -> range:
        return micro_batches[self._context.job.rank :: self._context.job.size]

    def _update(self) -> None:
        recorder, optimizer = self._context.recorder, self._updates.optimizer
        step = recorder.step
        start = recorder.start()
        self._average_gradients()
        recorder.add("receive", step, start)
        start = recorder.start()
        with self._model.tied.update(), self._around_update():
            if self._rules.apply():
                optimizer.step()
                self._updates.scheduler.step()
            else:
                advance(self._updates.scheduler, 1)
        optimizer.zero_grad()
        recorder.add("update", step, start)
        recorder.end_step()
        self._steps += 1

    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores of this rank's share."""
        self._average_buffers()
        return self._model.evaluate(batches, self._share(range(len(batches))), metrics)

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler, which are the same on every rank."""
        return TrainedState(
            self._model.layers,
            self._updates.optimizer,
            self._updates.scheduler,
            self._context.job.rank,
            self._updates.groups,
        )

    def bytes_sent(self) -> int:
        """Return what ring all-reduces send: 2 (R - 1) / R times the gradients' bytes per step."""
        ranks = self._context.job.size
        return self._steps * self._gradient_bytes * 2 * (ranks - 1) // ranks


def average_present(parameters: Iterable[nn.Parameter], context: RunContext) -> None:
    """Average gradients over all ranks of a process group by all-reduces (collective).

    A parameter that some ranks have no gradient for has zeros there; one that no rank has a
    gradient for keeps none.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    present = [float(parameter.grad is not None) for parameter in learning]
    found = torch.tensor(present, device=context.device)
    torch.distributed.all_reduce(found)
    for parameter, anywhere in zip(learning, found.tolist(), strict=True):
        if not anywhere:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= context.job.size
