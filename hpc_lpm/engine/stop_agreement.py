"""The ranks agree on the step before which training stops, without waiting for each other.

Rank 0 holds the first stage, whose forward passes are ahead of all others. When it begins the
forward passes of step s, it tells all other ranks whether step s + 2 will be trained. A rank has
this message before it begins step s + 1, usually long before: the activations that it needs to
begin step s left rank 0 after the message did. So every rank knows two steps ahead which messages
will come, and posts receives for these alone: gloo and NCCL cannot cancel a receive.
"""

from typing import Any

import numpy as np

from hpc_lpm.engine.collectives import wait_until
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.job import Job, MpiJob
from hpc_lpm.stop_signals import StopSignals

STEPS_AHEAD = 2
"""How many steps ahead of the step that begins rank 0 decides."""

_DECISION_TAG = 1
_REQUEST_TAG = 2


class StopAgreement:
    """What one rank knows about the end of the current segment, whose steps count from 0.

    `end` is the step before which the segment ends, as far as this rank knows. The steps before
    `agreed` will certainly be trained; at the start these are the first two.

    Args:
        job: the ranks that agree.
        signals: tell whether this rank was asked to stop.
        independent: whether every rank decides for itself.
    """

    def __init__(self, job: Job, signals: StopSignals, *, independent: bool = False) -> None:
        self.end = self.agreed = 0
        self._rank = 0 if independent else job.rank
        self.limit_seconds = job.limit_seconds
        self._signals = signals
        self._communicator: Any = None
        self._others = range(0)
        self._sent: list[Any] = []
        self._asked = False
        if isinstance(job, MpiJob) and job.size > 1 and not independent:
            job.barrier()  # Dup itself has no time limit
            self._communicator = job.communicator.Dup()
            self._others = range(1, job.size)

    def begin_segment(self, steps: int) -> None:
        """Begin a segment of that many steps; every rank calls this after a barrier."""
        self.end = steps
        self.agreed = min(STEPS_AHEAD, steps)

    def begin_step(self, step: int) -> None:
        """Announce that the forward passes of a step begin; wait until the next step is decided.

        Raises:
            BoundaryError: if rank 0 decides nothing within the limit.
        """
        if self._rank == 0:
            self._decide(step + STEPS_AHEAD)
            return
        self._ask_to_stop()
        if not wait_until(lambda: self._knows(step + 1), self.limit_seconds):
            raise BoundaryError.silence(0, self.limit_seconds)

    def listen(self) -> None:
        """Take note of the decisions that have arrived, without waiting."""
        if self._rank != 0:
            self._knows(self.end)

    def _decide(self, step: int) -> None:
        if step >= self.end:
            return
        stop = self._stop_wanted()
        decision = np.array([step, stop], dtype=np.int64)
        for rank in self._others:
            self._send(decision, rank, _DECISION_TAG)
        self._note(step, stop=stop)

    def _stop_wanted(self) -> bool:
        if self._others and not self._asked and self._communicator.Iprobe(tag=_REQUEST_TAG):
            self._communicator.Recv(np.empty(1, dtype=np.int64), tag=_REQUEST_TAG)
            self._asked = True
        return self._asked or self._signals.received is not None

    def _ask_to_stop(self) -> None:
        if self._signals.received is None or self._asked:
            return
        self._asked = True
        self._send(np.zeros(1, dtype=np.int64), 0, _REQUEST_TAG)

    def _knows(self, step: int) -> bool:
        """Receive the decisions that have arrived; return whether this step is decided."""
        decision = np.empty(2, dtype=np.int64)
        while self.agreed < self.end and self._communicator.Iprobe(source=0, tag=_DECISION_TAG):
            self._communicator.Recv(decision, source=0, tag=_DECISION_TAG)
            self._note(int(decision[0]), stop=bool(decision[1]))
        return step < self.agreed or self.agreed == self.end

    def _note(self, step: int, *, stop: bool) -> None:
        if stop:
            self.end = step
        else:
            self.agreed = step + 1
        assert self.agreed <= self.end

    def _send(self, message: Any, rank: int, tag: int) -> None:
        # MPI takes so short a message at once; its memory is held until MPI says so.
        self._sent = [(held, request) for held, request in self._sent if not request.Test()]
        self._sent.append((message, self._communicator.Isend(message, dest=rank, tag=tag)))
