"""Channels within a process: tensors are handed over, copied."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from hpc_lpm.engine.pipeline.boundary import MessagePart, TensorSpec
from hpc_lpm.engine.pipeline.memory_order import as_dense

Box = deque[tuple[Tensor | None, ...]]
"""The messages that were sent in one direction and not yet received, in order."""


class LocalChannel:
    """Hands messages of one kind over, and takes those that come; see `Channel`.

    Args:
        leaving: where messages are left.
        coming: where messages are taken from.
        wait_for: returns once what it is given is true; None where a message that is received was
            always sent before.
        counted: whether `bytes_sent` counts what is handed over, as between processes.
    """

    def __init__(
        self,
        leaving: Box,
        coming: Box,
        wait_for: Callable[[Callable[[], bool]], None] | None = None,
        *,
        counted: bool = False,
    ) -> None:
        self._leaving, self._coming = leaving, coming
        self._wait_for = wait_for
        self._counted = counted
        self._expected: deque[tuple[TensorSpec, ...]] = deque()
        self.bytes_sent = 0

    def send(self, parts: Sequence[MessagePart]) -> None:
        """Leave copies of the tensors: layers may change in place what they give and are given."""
        left = tuple(
            as_dense(part.detach()).clone() if isinstance(part, Tensor) else None for part in parts
        )
        if self._counted:
            self.bytes_sent += sum(tensor.nbytes for tensor in left if tensor is not None)
        self._leaving.append(left)

    def expect(self, messages: Iterable[tuple[TensorSpec, ...]]) -> None:
        """Take note of the memory layouts of the messages to come."""
        self._expected.extend(messages)

    def receive(self) -> tuple[Tensor | None, ...]:
        """Return the next message."""
        specs = self._expected.popleft()
        if self._wait_for:
            self._wait_for(lambda: bool(self._coming))
        return tuple(
            None if tensor is None else _laid_out(tensor, spec)
            for tensor, spec in zip(self._coming.popleft(), specs, strict=True)
        )

    def release_sent(self) -> None:
        """Do nothing: what was handed over belongs to the receiver."""

    def flush(self) -> None:
        """Do nothing: every message has left."""


def _laid_out(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """Return a tensor with the strides of memory that was made for it, as a transport would."""
    # Strides along a dimension of size 1 mean nothing, but kernels may be chosen by them.
    strides = spec.strides or torch.empty(spec.shape, device="meta").stride()
    return tensor if tensor.stride() == strides else tensor.as_strided(spec.shape, strides)
