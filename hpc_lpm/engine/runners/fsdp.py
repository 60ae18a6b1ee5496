"""Trains with PyTorch's FSDP2, which shards weights, gradients and optimizer over the ranks."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace

import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.evaluation import MicroBatchScores
from hpc_lpm.engine.gradient_rules import GradientRules, NormsByType
from hpc_lpm.engine.pipeline.gradient_average import average_buffers
from hpc_lpm.engine.pipeline.process_group import (
    join_process_group,
    noticing_silence,
    require_own_gpus,
)
from hpc_lpm.engine.pipeline.replica_sum import SumOverGroup
from hpc_lpm.engine.rehearsal import RehearsedPass
from hpc_lpm.engine.runners.data_parallel import DataParallelRunner, average_present
from hpc_lpm.engine.runners.runner import RunContext, TrainedState
from hpc_lpm.engine.runners.shards import Shards
from hpc_lpm.errors import TrainingError
from hpc_lpm.models.evaluation_metrics import EvaluationMetric


class FSDPRunner(DataParallelRunner):
    """One rank's shards of the model, whose layers PyTorch gathers for each of their passes.

    The model is whole until the first step: only rehearsals show which parameters are not used,
    and a checkpoint is restored before.
    """

    def __init__(self, context: RunContext) -> None:
        join_process_group(context.job, context.device)
        require_own_gpus(context.job, context.device, context.settings.strategy)
        super().__init__(context)
        self._shards: Shards | None = None
        self._whole_step: ExitStack | None = None
        self._has_gathered = False
        self._bytes_sent = 0

    def rehearse(
        self, passes: Sequence[RehearsedPass], metrics: Sequence[EvaluationMetric]
    ) -> None:
        """Find mistakes of the model before it trains (collective)."""
        with self._whole_layers():
            super().rehearse(passes, metrics)

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on this rank's share of a batch; what follows changes nothing."""
        if self._shards is None:
            self._shards = self._shard()
        micro_batches, missing = divmod(len(batch), self._context.job.size)
        self._whole_step = None
        with ExitStack() as whole:
            if missing:
                # All ranks must gather as often, which those with fewer micro-batches would not.
                self._whole_step = whole
                whole.enter_context(self._whole_layers())
            super().train(batch, following)
        self._count_bytes(self._shards, micro_batches, whole=bool(missing))

    def _shard(self) -> Shards:
        """Divide the model, which is whole, among the ranks (collective)."""
        model, context = self._model, self._context
        kept = set(model.sparse)
        for layer in model.layers.values():
            # What a pass does not use is known, and averaged, by parameter only if that is whole.
            if not model.unused.isdisjoint(layer.parameters()):
                kept.update(layer.parameters())
        for tie in model.tied.here:
            # Both ends are updated together.
            if kept.intersection(tie):
                kept.update(tie)
        group = torch.distributed.group.WORLD
        assert group is not None
        with making_process_groups(context.job):
            mesh = DeviceMesh.from_group(group, context.device.type)
            shards = Shards(model.layers, kept, mesh, model.as_module)
        model.searchable = False
        model.tied.replace(shards.parameters)
        shards.own_rows(self._updates.optimizer)
        self._parameters = [shards.parameters[parameter] for parameter in self._parameters]
        self._rules = GradientRules(
            [model.tied.without_copies(self._parameters)],
            context.settings,
            context.recorder,
            whole_norms=self._whole_norms,
        )
        return shards

    def _whole_norms(self, parameters: Sequence[nn.Parameter], norms: NormsByType) -> NormsByType:
        assert self._shards is not None
        whole = {}
        for kind, of_kind in norms.items():
            alike = [parameter for parameter in parameters if parameter.dtype == kind]
            divided = torch.tensor([p in self._shards for p in alike], device=of_kind.device)
            squares = torch.where(divided, of_kind.double().square(), 0)
            with self._waiting():
                torch.distributed.all_reduce(squares)
            whole[kind] = torch.where(divided, squares.sqrt().to(of_kind.dtype), of_kind)
        return whole

    @contextmanager
    def _backward_of(self, n: int, last: int) -> Iterator[None]:
        if self._whole_step is not None:
            yield
            return
        assert self._shards is not None
        self._shards.average_after_backward(n == last)
        with self._running(self._shards.root), self._waiting():
            yield
        self._has_gathered = True

    @contextmanager
    def _running(self, module: nn.Module) -> Iterator[None]:
        """Run layers by this module within."""
        model = self._model
        alone, model.run_layers = model.run_layers, module
        try:
            yield
        finally:
            model.run_layers = alone

    def _average_gradients(self) -> None:
        """Take the gradients that FSDP2 has averaged, and average those of whole parameters.

        Raises:
            TrainingError: if a parameter that every rehearsed pass used was not used this time.
        """
        shards = self._shards
        assert shards is not None
        with self._waiting():
            if self._whole_step is not None:
                average_present(self._model.module.parameters(), self._context)
                self._whole_step.close()
                return
            if shards.take_gradients():
                step, strategy = self._context.recorder.step, self._context.settings.strategy
                raise TrainingError(
                    f"rank {self._context.job.rank}, step {step}: a parameter that was used in the "
                    "rehearsal had no gradient, which FSDP2 divides among the ranks: let every "
                    f"micro-batch use the same parameters, or use another strategy than {strategy}."
                )
            average_present((p for p in self._parameters if p not in shards), self._context)

    def _average_buffers(self) -> None:
        group = torch.distributed.group.WORLD
        assert group is not None
        with self._waiting():
            average_buffers(self._model.module, SumOverGroup(group), self._context.job.size)

    def evaluate(
        self, batches: MicroBatches, metrics: Sequence[EvaluationMetric]
    ) -> list[MicroBatchScores]:
        """Return the scores of this rank's share."""
        shards = self._shards
        if shards is None or not self._has_gathered:
            with self._waiting(), self._whole_layers():
                return super().evaluate(batches, metrics)
        with self._running(shards.scored), self._waiting():
            scores = super().evaluate(batches, metrics)
            if len(scores) * self._context.job.size < len(batches):
                shards.pass_by()
        return scores

    def state(self) -> TrainedState:
        """Return the layers, optimizer and scheduler, of which this rank may hold shards."""
        return replace(super().state(), whole=self._whole)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        if self._shards is None:
            yield
            return
        with self._waiting(), self._shards.whole(self._updates.optimizer):
            yield

    def _whole_layers(self) -> AbstractContextManager[object]:
        return nullcontext() if self._shards is None else self._shards.whole_layers()

    def _waiting(self) -> AbstractContextManager[None]:
        job, step = self._context.job, self._context.recorder.step
        where = f"rank {job.rank}, step {step}"
        return noticing_silence(where, "shards or averages of the other ranks", job.limit_seconds)

    def _count_bytes(self, shards: Shards, micro_batches: int, *, whole: bool) -> None:
        """Count what rings send in a step: (R - 1) / R of what is gathered or scattered."""
        averaged = self._parameters if whole else [p for p in self._parameters if p not in shards]
        gatherings = 1 if whole else 2 * micro_batches
        moved = gatherings * shards.bytes_gathered()
        moved += 0 if whole else shards.bytes_gathered(learning=True)
        moved += 2 * sum(shards.bytes_of(p) for p in averaged if p.requires_grad)
        ranks = self._context.job.size
        self._bytes_sent += moved * (ranks - 1) // ranks

    def bytes_sent(self) -> int:
        """Return what rings send.

        A step gathers the weights twice for each of this rank's micro-batches, forward and
        backward, and scatters the sums of the gradients once.
        """
        return self._bytes_sent
