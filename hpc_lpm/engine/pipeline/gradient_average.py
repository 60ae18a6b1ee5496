"""Averages over the replicas of a stage: gradients while the next forward runs, buffers at rest."""

import time
from collections.abc import Callable, Iterable

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import ProcessGroup, Work

from hpc_lpm.engine.faults import BoundaryError

_SPIN_SECONDS = 200e-6
_POLL_SECONDS = 50e-6


class GradientAverage:
    """The gradients of one stage in flat memory, averaged over its replicas in place.

    Every `parameter.grad` is a view of one flat tensor (one for each type of the parameters), into
    which autograd accumulates; so an all-reduce of that tensor needs no packing and no copy.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        group: ProcessGroup,
        replicas: int,
        *,
        timeout_seconds: float,
    ) -> None:
        self._group = group
        self._replicas = replicas
        self._timeout_seconds = timeout_seconds
        self._works: list[Work] = []
        self._flat: list[Tensor] = []
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        by_type: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                by_type.setdefault(parameter.dtype, []).append(parameter)
        for dtype, alike in by_type.items():
            self._lay_out(dtype, alike)
        self.begin_step()
        self.bytes_sent = 0

    def _lay_out(self, dtype: torch.dtype, parameters: list[nn.Parameter]) -> None:
        total = sum(parameter.numel() for parameter in parameters)
        flat = torch.zeros(total, dtype=dtype, device=parameters[0].device)
        offset = 0
        for parameter in parameters:
            # As the gradient would lie if autograd had allocated it.
            stride = torch.empty_like(parameter, device="meta").stride()
            self._views.append((parameter, flat.as_strided(parameter.shape, stride, offset)))
            offset += parameter.numel()
        self._flat.append(flat)

    def begin_step(self) -> None:
        """Clear the gradients and make them views of the flat memory, whatever they were."""
        for flat in self._flat:
            flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    def start(self) -> None:
        """Start summing the gradients over the replicas, each of which calls this (collective).

        Until `finish` nobody may read or change them.
        """
        for flat in self._flat:
            work = torch.distributed.all_reduce(flat, group=self._group, async_op=True)
            assert work is not None
            self._works.append(work)
            # What each replica sends in a ring.
            self.bytes_sent += flat.nbytes * 2 * (self._replicas - 1) // self._replicas

    def finish(self, while_waiting: Callable[[], None]) -> None:
        """Wait for the sums and divide them by the number of replicas.

        Args:
            while_waiting: called again and again. Another replica may wait, over its neighbours,
                for a message that this rank has sent and MPI has yet to move.

        Raises:
            BoundaryError: if they do not come in time, or a replica is gone.
        """
        start = time.perf_counter()
        while not all(work.is_completed() for work in self._works):
            while_waiting()
            waited = time.perf_counter() - start
            if waited > self._timeout_seconds:
                raise self._missing(f"no answer for {self._timeout_seconds:g} s")
            if waited > _SPIN_SECONDS:
                time.sleep(_POLL_SECONDS)
        try:
            for work in self._works:
                work.wait()
        except RuntimeError as error:
            raise self._missing("lost the connection") from error
        self._works.clear()
        for flat in self._flat:
            flat.div_(self._replicas)

    def _missing(self, what: str) -> BoundaryError:
        return BoundaryError(
            f"{what} while gradients were averaged over the stage's {self._replicas} replicas: one "
            "of them, or a stage beside it, hangs or is gone; raise --receive-timeout if it is but "
            "slow"
        )


@torch.no_grad()
def average_buffers(module: nn.Module, group: ProcessGroup, replicas: int) -> None:
    """Average BatchNorm's running statistics and other float buffers over replicas (collective).

    Replicas see different samples, so these differ until averaged.
    """
    for buffer in module.buffers():
        if buffer.is_floating_point():
            averaged = buffer.clone()
            torch.distributed.all_reduce(averaged, group=group)
            buffer.copy_(averaged.div_(replicas))
