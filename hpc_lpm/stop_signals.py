"""Record the signals that ask a run to stop; the training loop acts on them at the next step.

Plain Python, so that the handlers are in place before torch is imported, which takes seconds.
"""

import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """Records the name of the first signal that arrives."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._interrupted = False

    def install(self) -> None:
        """Take over the signals; after a first SIGINT, a second one interrupts at once.

        Call it again once MPI has started, because UCX takes SIGHUP for itself.
        """
        for number in STOPPING:
            if number != signal.SIGINT or not self._interrupted:
                signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name
        if number == signal.SIGINT:
            self._interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)


STOP_SIGNALS = StopSignals()
"""The signals that this process has received."""
