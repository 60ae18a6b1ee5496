"""Record the signals that ask a run to stop; the training loop acts on them at the next step.

Before training begins there is no next step, and a rank may be in a read or a call into a library
that does not return. A thread waits for signals then, and ends the process at once.

Plain Python, so that the handlers are in place before torch is imported, which takes seconds.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)

_LEFT_ALONE = (signal.SIGHUP, signal.SIGINT)
"""Signals that `nohup`, or a script which starts a command behind it, lets the command ignore.

The others are taken over all the same: slurm/job.sh ignores them for all that it starts, and passes
them on to those of us that ask for them.
"""


def inherited_as_ignored() -> frozenset[signal.Signals]:
    """Return the signals that whoever has started this process wants it to ignore."""
    return frozenset(each for each in _LEFT_ALONE if signal.getsignal(each) is signal.SIG_IGN)


class StopSignals:
    """Records the name of the first signal that arrives."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._interrupted = False
        self._ignored: frozenset[signal.Signals] | None = None
        self._watch: _Watch | None = None

    def install(self) -> None:
        """Take over the signals; after a first SIGINT, a second one interrupts at once.

        Those that this process has inherited as ignored, as under `nohup`, stay so. Call it again
        once MPI has started, because UCX takes SIGHUP for itself.
        """
        if self._ignored is None:
            self._ignored = inherited_as_ignored()
        for number in STOPPING:
            if number in self._ignored:
                signal.signal(number, signal.SIG_IGN)
            elif number != signal.SIGINT or not self._interrupted:
                signal.signal(number, self._note)

    def end_process_by(self, end: Callable[[str], None]) -> None:
        """Until training begins, call `end` in a thread with the name of the first signal.

        `end` ends the process, or returns if training has begun meanwhile.
        """
        self._watch = _Watch(end)

    def begin_training(self) -> None:
        """Leave signals to the training loop from here on; every rank has got here."""
        if self._watch:
            self._watch.stop()

    @property
    def training(self) -> bool:
        """Tell if the training loop heeds the signals."""
        return self._watch is None or self._watch.stopped

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name
        if number == signal.SIGINT:
            self._interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _Watch:
    """A thread that learns of a signal from a pipe, even if Python's handler cannot run."""

    def __init__(self, end: Callable[[str], None]) -> None:
        self.stopped = False
        self._end = end
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="stop signals", daemon=True).start()

    def stop(self) -> None:
        """Let signals be; the pipe stays, since only the main thread may take it away."""
        self.stopped = True

    def _wait(self) -> None:
        numbers = {int(number) for number in STOPPING}
        while received := os.read(self._reading, 1):
            if received[0] in numbers and not self.stopped:
                self._end(signal.Signals(received[0]).name)


def nothing_to_save(name: str) -> str:
    """Return the sentence about a run that the signal of this name has stopped too early."""
    return (
        f"interrupted by {name} before the first step: there is nothing to save, run the command "
        "again."
    )


STOP_SIGNALS = StopSignals()
"""The signals that this process has received."""
