"""Averages over the replicas of a stage: gradients in training, buffers before an evaluation."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from hpc_lpm.engine.collectives import wait_until
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.replica_sum import ReplicaSum, StartedSum


class GradientAverage:
    """Averages the gradients of one stage over its replicas, while the next forward pass runs.

    Every `parameter.grad` is a view of one flat tensor (one for each type of the parameters), into
    which autograd accumulates: an all-reduce of that tensor needs no packing and no copy. Behind
    the gradients it has a flag for each parameter, which tells if any replica has a gradient for
    it: a parameter that none of them used has none, as on one device.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        summing: ReplicaSum,
        replicas: int,
        *,
        timeout_seconds: float,
    ) -> None:
        self._summing = summing
        self._replicas = replicas
        self._timeout_seconds = timeout_seconds
        self._works: list[StartedSum] = []
        by_type: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                by_type.setdefault(parameter.dtype, []).append(parameter)
        self._parts = [_AlikeGradients(alike) for alike in by_type.values()]
        self.begin_step()
        self.bytes_sent = 0

    def begin_step(self) -> None:
        """Clear the gradients and make them views of the flat tensors again."""
        for part in self._parts:
            part.clear()

    def start(self) -> None:
        """Start summing the gradients over the replicas, each of which calls this (collective).

        Until `finish` nothing may read or change the gradients.
        """
        for part in self._parts:
            flat = part.flagged()
            self._works.append(self._summing.start(flat))
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
        for part in self._parts:
            part.divide(self._replicas)

    def _missing(self, what: str) -> BoundaryError:
        return BoundaryError(
            f"{what} while gradients were averaged over the stage's {self._replicas} replicas: one "
            "of them, or a stage beside it, hangs or is gone; raise --receive-timeout if it is "
            "only slow"
        )


class _AlikeGradients:
    """The gradients of parameters of one type in one flat tensor, with their flags behind them."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        first = parameters[0]
        total = sum(parameter.numel() for parameter in parameters)
        self._flat = torch.zeros(total + len(parameters), dtype=first.dtype, device=first.device)
        self._flags = self._flat[total:]
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        self._versions: list[int] = []
        offset = 0
        for parameter in parameters:
            # The layout that the gradient would have if autograd had allocated it.
            stride = torch.empty_like(parameter, device="meta").stride()
            # `.data` counts its changes by itself, so that it shows if autograd has added to it.
            view = self._flat.as_strided(parameter.shape, stride, offset).data
            self._views.append((parameter, view))
            offset += parameter.numel()

    def clear(self) -> None:
        """Set the gradients to zero and hand them to the parameters."""
        self._flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view
        self._versions = [view._version for _, view in self._views]

    def flagged(self) -> Tensor:
        """Return the flat tensor, flags included."""
        changed = [
            view._version != before
            for (_, view), before in zip(self._views, self._versions, strict=True)
        ]
        self._flags.copy_(torch.tensor(changed))
        return self._flat

    def divide(self, replicas: int) -> None:
        """Make the sums means, and take the gradient from parameters that nobody has used."""
        self._flat.div_(replicas)
        for (parameter, _), used in zip(self._views, self._flags.tolist(), strict=True):
            if not used:
                parameter.grad = None


@torch.no_grad()
def average_buffers(module: nn.Module, summing: ReplicaSum, replicas: int) -> None:
    """Average BatchNorm's running statistics and other float buffers over replicas (collective).

    Replicas see different samples, so their buffers differ until they are averaged.
    """
    for buffer in module.buffers():
        if buffer.is_floating_point():
            averaged = buffer.clone()
            summing.start(averaged).wait()
            buffer.copy_(averaged.div_(replicas))
