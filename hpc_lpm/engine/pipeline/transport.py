"""Point-to-point messages between neighbouring stages over MPI, without ever blocking a sender."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

    def __init__(self, communicator: Any, peer: int, tag: int) -> None:
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
        """Return the next message, waiting for it if it is not here yet."""
        message = self._posted.popleft()
        _wait(message.requests)
        self._post_ahead()
        return message.tensors

    def flush(self) -> None:
        """Wait until every message has left."""
        while self._leaving:
            _wait(self._leaving.popleft().requests)

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


def _wait(requests: list[Any]) -> None:
    """Wait without keeping the core busy: other ranks may need it."""
    give_up_spinning = time.perf_counter() + _SPIN_SECONDS
    for request in requests:
        while not request.Test():
            if time.perf_counter() > give_up_spinning:
                time.sleep(_POLL_SECONDS)
