"""Messages between two ranks that are waited for with a limit."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.engine.collectives import wait_until

if TYPE_CHECKING:
    from mpi4py import MPI

Buffer = NDArray[Any]

_given_up: list[tuple[object, Buffer]] = []
"""Messages that MPI may still read or write when nobody waits for them any more."""


class NoAnswerError(Exception):
    """The other rank did not take or send a message in time."""


class Partner:
    """Another rank; every message to or from it is waited for at most `limit_seconds`."""

    def __init__(
        self, communicator: "MPI.Intracomm", rank: int, tag: int, limit_seconds: float
    ) -> None:
        self.rank = rank
        self.limit_seconds = limit_seconds
        self._communicator = communicator
        self._tag = tag

    def send(self, message: Buffer) -> None:
        """Send a message; raises NoAnswerError."""
        request = self._communicator.Isend(message, dest=self.rank, tag=self._tag)
        self._finish(request, message)

    def receive(self, message: Buffer) -> None:
        """Receive a message of that size; raises NoAnswerError."""
        request = self._communicator.Irecv(message, source=self.rank, tag=self._tag)
        self._finish(request, message)

    def send_number(self, number: float) -> None:
        """Send one number; raises NoAnswerError."""
        self.send(np.array([number], dtype=np.float64))

    def receive_number(self) -> float:
        """Receive one number; raises NoAnswerError."""
        message = np.zeros(1, dtype=np.float64)
        self.receive(message)
        return float(message[0])

    def _finish(self, request: "MPI.Request", message: Buffer) -> None:
        if wait_until(lambda: bool(request.Test()), self.limit_seconds):
            return
        _given_up.append((request, message))
        raise NoAnswerError(f"rank {self.rank} did not answer within {self.limit_seconds:g} s")
