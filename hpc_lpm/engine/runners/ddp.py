"""Trains with PyTorch's DistributedDataParallel, which averages the gradients of ranks."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from hpc_lpm.engine.batches import MicroBatches
from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.pipeline.gradient_average import average_buffers
from hpc_lpm.engine.pipeline.process_group import join_process_group, noticing_silence
from hpc_lpm.engine.pipeline.replica_sum import SumOverGroup
from hpc_lpm.engine.runners.data_parallel import DataParallelRunner, average_present
from hpc_lpm.engine.runners.runner import RunContext
from hpc_lpm.engine.strategies.ddp import DDPOptions
from hpc_lpm.errors import TrainingError


class DDPRunner(DataParallelRunner):
    """One replica, whose gradients PyTorch averages during the last backward pass of a step."""

    def __init__(self, context: RunContext) -> None:
        join_process_group(context.job, context.device)
        super().__init__(context)
        self._ddp: DistributedDataParallel | None = None
        self._is_wrapped = False
        self._alone = False

    def train(self, batch: MicroBatches, following: MicroBatches | None) -> None:
        """Train on this rank's share of a batch; what follows changes nothing."""
        if not self._is_wrapped:
            # Not earlier: only rehearsals show what is unused, and what has sparse gradients.
            self._wrap()
        # PyTorch averages in backward passes, of which a rank without a micro-batch has none.
        self._alone = len(batch) < self._context.job.size
        super().train(batch, following)

    def _wrap(self) -> None:
        """Put PyTorch's module around the model, if that has anything to average (collective)."""
        self._is_wrapped = True
        if not any(parameter.requires_grad for parameter in self._parameters):
            return
        own = self._context.settings.own
        assert isinstance(own, DDPOptions)
        for part in self._model.module.modules():
            if isinstance(part, torch.nn.Embedding | torch.nn.EmbeddingBag):
                # Its gradient is made a dense one before PyTorch looks at it.
                part.sparse = False
        with making_process_groups(self._context.job), warnings.catch_warnings():
            # Later releases of PyTorch call `broadcast_buffers` otherwise.
            warnings.simplefilter("ignore", FutureWarning)
            self._ddp = DistributedDataParallel(
                self._model.as_module(),
                bucket_cap_mb=own.bucket_megabytes,
                # Averaged before an evaluation, as other replicas are.
                broadcast_buffers=False,
                # Looking for them at every step takes time.
                find_unused_parameters=bool(self._model.unused),
                gradient_as_bucket_view=True,
            )

    @contextmanager
    def _backward_of(self, n: int, last: int) -> Iterator[None]:
        if self._ddp is None:
            yield
            return
        model = self._model
        alone, model.run_layers = model.run_layers, self._ddp
        try:
            averaging = nullcontext() if n == last and not self._alone else self._ddp.no_sync()
            with averaging, self._waiting():
                yield
        finally:
            model.run_layers = alone

    def _average_gradients(self) -> None:
        """Check that the backward pass has averaged all gradients, or average them now.

        Raises:
            TrainingError: if a parameter that every rehearsed pass used was not used this time.
        """
        if self._ddp is None:
            return
        if self._alone:
            with self._waiting():
                # Some ranks have no micro-batch in this step.
                average_present(self._parameters, self._context)
            return
        try:
            self._ddp._check_reducer_finalized()  # type: ignore[no-untyped-call]
        except RuntimeError:
            step, strategy = self._context.recorder.step, self._context.settings.strategy
            raise TrainingError(
                f"rank {self._context.job.rank}, step {step}: a parameter that was used in the "
                "rehearsal had no gradient, which DistributedDataParallel waits for: let every "
                f"micro-batch use the same parameters, or use another strategy than {strategy}."
            ) from None

    def _average_buffers(self) -> None:
        group = torch.distributed.group.WORLD
        assert group is not None
        with self._waiting():
            average_buffers(self._model.module, SumOverGroup(group), self._context.job.size)

    def _waiting(self) -> AbstractContextManager[None]:
        job, step = self._context.job, self._context.recorder.step
        where = f"rank {job.rank}, step {step}"
        return noticing_silence(where, "averages over the ranks", job.limit_seconds)
