"""Sentences of all ranks in one log: those of other ranks reach the one that reports by message."""

import time

from hpc_lpm.engine.job import Job
from hpc_lpm.engine.run_reporter import RunReporter

_SECONDS_BETWEEN_LOOKS = 2.0


class RankNotices:
    """Passes on what a rank has to say to the log of the run, which is rare.

    Args:
        job: the ranks of the run, each of which makes this.
        reporting_rank: the one with the reporter.
        reporter: of that rank, None on the others.
        independent: whether ranks never exchange messages; then only the reporting one is heard.
    """

    def __init__(
        self, job: Job, reporting_rank: int, reporter: RunReporter | None, *, independent: bool
    ) -> None:
        self._job = job
        self._reporting_rank = reporting_rank
        self._reporter = reporter
        self._tag = job.own_tag()
        ranks = range(0 if independent else job.size)
        self._others = [rank for rank in ranks if rank != job.rank]
        self._next_look = 0.0

    def tell(self, sentence: str) -> None:
        """Have a sentence shown in the log of the run; never wait for that."""
        if self._reporter:
            self._reporter.message(sentence)
        elif self._others:
            self._job.send(sentence, self._reporting_rank, self._tag)

    def report_step(self, step: int, loss: float | None, seconds: float, skipped: bool) -> None:
        """Report an optimizer step, on the reporting rank, and now and then what others say."""
        if self._reporter is None:
            return
        self._reporter.step(step, loss, seconds, skipped)
        if time.monotonic() >= self._next_look:
            self.look()

    def look(self) -> None:
        """Show, on the reporting rank, what others have said by now."""
        if self._reporter is None:
            return
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        for rank in self._others:
            while self._job.arrived(rank, self._tag):
                self._reporter.message(self._job.receive(rank, self._tag))
