"""Agreement of the ranks on where training stops, without any of them waiting for the others.

Rank 0 holds the first stage, whose forwards are ahead of everybody's. When it begins the forwards
of step s it tells all other ranks whether step s + 2 will be trained. A rank has this word before
it begins step s + 1, usually long before: what it needs of rank 0 to begin step s left rank 0 after
the word did. So every rank knows two steps ahead which messages will come, and receives are posted
for no others: those of gloo and NCCL cannot be taken back.
"""

from typing import Any

import numpy as np

from hpc_lpm.engine.collectives import wait_until
from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.job import Job, MpiJob
from hpc_lpm.stop_signals import StopSignals

STEPS_AHEAD = 2
"""By how many steps the word is ahead of the step that is begun."""

_WORD_TAG = 1
_REQUEST_TAG = 2


class StopAgreement:
    """What one rank knows of the end of the segment that is trained; its steps count from 0.

    `end` is the step before which the segment ends, as far as is known; all steps before `agreed`
    will be trained for certain. At the start these are the first two.

    Args:
        job: the ranks that agree; each of `independent` ones decides for itself.
        signals: what asks this rank to stop.
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
            job.barrier()  # Dup itself has no limit
            self._communicator = job.communicator.Dup()
            self._others = range(1, job.size)

    def begin_segment(self, steps: int) -> None:
        """Start with a segment of so many steps (every rank, after a barrier)."""
        self.end = steps
        self.agreed = min(STEPS_AHEAD, steps)

    def begin_step(self, step: int) -> None:
        """Tell that the forwards of a step begin, and learn until where training goes on.

        Raises:
            BoundaryError: if rank 0 is silent too long.
        """
        if self._rank == 0:
            self._decide(step + STEPS_AHEAD)
            return
        self._ask_to_stop()
        if not wait_until(lambda: self._knows(step + 1), self.limit_seconds):
            raise BoundaryError.silence(0, self.limit_seconds)

    def listen(self) -> None:
        """Learn what has come meanwhile, without waiting."""
        if self._rank != 0:
            self._knows(self.end)

    def _decide(self, step: int) -> None:
        if step >= self.end:
            return
        stop = self._stop_wanted()
        word = np.array([step, stop], dtype=np.int64)
        for rank in self._others:
            self._send(word, rank, _WORD_TAG)
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
        """Take the words that have come; tell if it is known whether this step will be trained."""
        word = np.empty(2, dtype=np.int64)
        while self.agreed < self.end and self._communicator.Iprobe(source=0, tag=_WORD_TAG):
            self._communicator.Recv(word, source=0, tag=_WORD_TAG)
            self._note(int(word[0]), stop=bool(word[1]))
        return step < self.agreed or self.agreed == self.end

    def _note(self, step: int, *, stop: bool) -> None:
        if stop:
            self.end = step
        else:
            self.agreed = step + 1
        assert self.agreed <= self.end

    def _send(self, word: Any, rank: int, tag: int) -> None:
        # Words are so short that MPI takes them at once; until it says so their memory is held.
        self._sent = [(held, request) for held, request in self._sent if not request.Test()]
        self._sent.append((word, self._communicator.Isend(word, dest=rank, tag=tag)))
