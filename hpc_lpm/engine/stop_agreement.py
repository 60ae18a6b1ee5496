"""The ranks agree on the step before which training stops, without waiting for each other.

Rank 0 holds the first stage, whose forward passes are ahead of all others. When it begins the
forward passes of step s, it tells all other ranks whether step s + 2 will be trained. A rank has
this message before it begins step s + 1, usually long before: the activations that it needs to
begin step s left rank 0 after the message did. So every rank knows two steps ahead which messages
will come, and posts receives for these alone: gloo and NCCL cannot cancel a receive.
"""

from collections.abc import Callable

from hpc_lpm.engine.faults import BoundaryError
from hpc_lpm.engine.job import Job
from hpc_lpm.stop_signals import StopSignals

STEPS_AHEAD = 2
"""How many steps ahead of the step that begins rank 0 decides."""


class StopAgreement:
    """What one rank knows about the end of the current segment, whose steps count from 0.

    `end` is the step before which the segment ends, as far as this rank knows. The steps before
    `agreed` will certainly be trained; at the start these are the first two.

    Args:
        job: the ranks that agree.
        signals: tell whether this rank was asked to stop.
        independent: whether every rank decides for itself.
        also: tells if this rank wants the segment to end for another reason than a signal.
    """

    def __init__(
        self,
        job: Job,
        signals: StopSignals,
        *,
        independent: bool = False,
        also: Callable[[], bool] = lambda: False,
    ) -> None:
        self.end = self.agreed = 0
        self._job = job
        self._rank = 0 if independent else job.rank
        self._others = range(1, 1 if independent else job.size)
        self._decisions, self._requests = job.own_tag(), job.own_tag()
        self._signals = signals
        self._also = also
        self._segment = 0
        self._asked = False

    def begin_segment(self, steps: int) -> None:
        """Begin a segment of that many steps; every rank calls this after a barrier."""
        self._segment += 1
        self._asked = False
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
        while not self._is_decided(step + 1):
            self._receive_decision()

    def _decide(self, step: int) -> None:
        if step >= self.end:
            return
        stop = self._stop_wanted()
        for rank in self._others:
            self._job.send((step, stop), rank, self._decisions)
        self._note(step, stop=stop)

    def _stop_wanted(self) -> bool:
        for rank in self._others:
            # A request may have come too late for the segment that it was about.
            while not self._asked and self._job.arrived(rank, self._requests):
                self._asked = self._job.receive(rank, self._requests) == self._segment
        return self._asked or self._wants_to_stop()

    def _wants_to_stop(self) -> bool:
        return self._signals.received is not None or self._also()

    def _ask_to_stop(self) -> None:
        if self._asked or not self._wants_to_stop():
            return
        self._asked = True
        self._job.send(self._segment, 0, self._requests)

    def _is_decided(self, step: int) -> bool:
        return step < self.agreed or self.agreed == self.end

    def _receive_decision(self) -> None:
        try:
            step, stop = self._job.receive(0, self._decisions)
        except TimeoutError:
            raise BoundaryError.silence(0, self._job.limit_seconds) from None
        self._note(step, stop=stop)

    def _note(self, step: int, *, stop: bool) -> None:
        if stop:
            self.end = step
        else:
            self.agreed = step + 1
        assert self.agreed <= self.end
