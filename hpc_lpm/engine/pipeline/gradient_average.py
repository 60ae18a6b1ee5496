"""Averages over the replicas of a stage: gradients in training, buffers before an evaluation."""

from collections.abc import Callable, Iterable

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import ProcessGroup, Work

from hpc_lpm.engine.collectives import wait_until
from hpc_lpm.engine.faults import BoundaryError


class GradientAverage:
    """Averages the gradients of one stage over its replicas, while the next forward pass runs.

    Every `parameter.grad` is a view of one flat tensor (one for each type of the parameters), into
    which autograd accumulates: an all-reduce of that tensor needs no packing and no copy.
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
            # The layout that the gradient would have if autograd had allocated it.
            stride = torch.empty_like(parameter, device="meta").stride()
            self._views.append((parameter, flat.as_strided(parameter.shape, stride, offset)))
            offset += parameter.numel()
        self._flat.append(flat)

    def begin_step(self) -> None:
        """Clear the gradients and make them views of the flat tensors again."""
        for flat in self._flat:
            flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    def start(self) -> None:
        """Start summing the gradients over the replicas, each of which calls this (collective).

        Until `finish` nothing may read or change the gradients.
        """
        for flat in self._flat:
            work = torch.distributed.all_reduce(flat, group=self._group, async_op=True)
            assert work is not None
            self._works.append(work)
            # What each replica sends if the all-reduce is a ring.
            self.bytes_sent += flat.nbytes * 2 * (self._replicas - 1) // self._replicas

    def finish(self, while_waiting: Callable[[], None]) -> None:
        """Wait for the sums and divide them by the number of replicas.

        Args:
            while_waiting: is called again and again meanwhile. Another replica may be waiting,
                through its neighbours, for a message that this rank has sent and MPI has yet to
                move.

        Raises:
            BoundaryError: if the sums do not come in time, or a replica is gone.
        """

        def completed() -> bool:
            if all(work.is_completed() for work in self._works):
                return True
            while_waiting()
            return False

        if not wait_until(completed, self._timeout_seconds):
            raise self._missing(f"no answer for {self._timeout_seconds:g} s")
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
            "of them, or a stage beside it, hangs or is gone; raise --receive-timeout if it is "
            "only slow"
        )


@torch.no_grad()
def average_buffers(module: nn.Module, group: ProcessGroup, replicas: int) -> None:
    """Average BatchNorm's running statistics and other float buffers over replicas (collective).

    Replicas see different samples, so their buffers differ until they are averaged.
    """
    for buffer in module.buffers():
        if buffer.is_floating_point():
            averaged = buffer.clone()
            torch.distributed.all_reduce(averaged, group=group)
            buffer.copy_(averaged.div_(replicas))
