"""Point-to-point messages between neighbouring stages over MPI, without ever blocking a sender."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from numpy.typing import NDArray
from torch import Tensor

from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.pipeline.boundary import TensorSpec

RECEIVES_AHEAD = 2
"""Messages whose receives are posted before they are needed, on each channel."""

_SPIN_SECONDS = 200e-6
_POLL_SECONDS = 50e-6


def _as_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """Return the memory of a contiguous host tensor as bytes, without a copy."""
    array: NDArray[np.uint8] = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return array


@dataclass
class _Posted:
    tensors: tuple[Tensor, ...]
    requests: list[Any]


class Channel:
    """Messages in one direction between this rank and a neighbour, delivered in order.

    Tensors on the host are sent from and received into their own memory; device tensors are
    staged through it.
    """

    def __init__(
        self, communicator: Any, peer: int, tag: int, *, receive_timeout_seconds: float
    ) -> None:
        self._timeout_seconds = receive_timeout_seconds
        self._communicator = communicator
        self._peer = peer
        self._tag = tag
        self._leaving: deque[_Posted] = deque()
        self._posted: deque[_Posted] = deque()
        self._expected: deque[tuple[TensorSpec, ...]] = deque()
        self.bytes_sent = 0

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Start sending a message; its memory is held until it has left."""
        held = tuple(tensor.detach().cpu().contiguous() for tensor in tensors)
        requests = []
        for tensor in held:
            memory = _as_bytes(tensor)
            self.bytes_sent += memory.nbytes
            requests.append(self._communicator.Isend(memory, dest=self._peer, tag=self._tag))
        self._leaving.append(_Posted(held, requests))
        self.release_sent()

    def release_sent(self) -> None:
        """Let go of the messages that have left; also drives MPI's progress."""
        while self._leaving and _all_done(self._leaving[0].requests):
            self._leaving.popleft()

    def expect(self, messages: Iterable[tuple[TensorSpec, ...]]) -> None:
        """Announce the messages to come; the first few receives are posted at once."""
        self._expected.extend(messages)
        self._post_ahead()

    def receive(self) -> tuple[Tensor, ...]:
        """Return the next message, waiting for it if it is not here yet.

        Raises:
            BoundaryError: if it is not as long as expected, or does not come in time.
        """
        message = self._posted.popleft()
        for tensor, request in zip(message.tensors, message.requests, strict=True):
            self._wait_for(request, tensor.numel() * tensor.element_size())
        self._post_ahead()
        return message.tensors

    def flush(self) -> None:
        """Wait until every message has left.

        Raises:
            BoundaryError: if the neighbour does not take one in time.
        """
        while self._leaving:
            for request in self._leaving.popleft().requests:
                self._wait(request, MPI.Status())

    def _wait_for(self, request: Any, expected_bytes: int) -> None:
        status = MPI.Status()
        try:
            self._wait(request, status)
        except MPI.Exception as error:
            if error.Get_error_class() != MPI.ERR_TRUNCATE:
                raise
            found = "more"
        else:
            if status.Get_count(MPI.BYTE) == expected_bytes:
                return
            found = str(status.Get_count(MPI.BYTE))
        raise BoundaryError(
            f"a tensor from rank {self._peer} has {found} bytes where {expected_bytes} were "
            "agreed before training: layers must return shapes that depend on the number of "
            "samples alone"
        )

    def _wait(self, request: Any, status: Any) -> None:
        """Wait without keeping the core busy: other ranks may need it."""
        start = time.perf_counter()
        while not request.Test(status):
            waited = time.perf_counter() - start
            if waited > self._timeout_seconds:
                raise BoundaryError(
                    f"no word from rank {self._peer} for {self._timeout_seconds:g} s: it, or a "
                    "stage behind it, hangs or is gone; raise --receive-timeout if it is but slow"
                )
            if waited > _SPIN_SECONDS:
                time.sleep(_POLL_SECONDS)

    def _post_ahead(self) -> None:
        while self._expected and len(self._posted) < RECEIVES_AHEAD:
            tensors = tuple(spec.empty() for spec in self._expected.popleft())
            requests = [
                self._communicator.Irecv(_as_bytes(tensor), source=self._peer, tag=self._tag)
                for tensor in tensors
            ]
            self._posted.append(_Posted(tensors, requests))


def _all_done(requests: list[Any]) -> bool:
    return all(request.Test() for request in requests)
