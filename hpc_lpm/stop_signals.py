"""The signals that ask a run to stop at the next opportunity, noted but not acted upon here.

Plain Python, so that it can be in place before torch is imported, which takes seconds.
"""

import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """Notes the name of the first signal that came."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._interrupted = False

    def install(self) -> None:
        """Take over the signals; after one SIGINT another one interrupts at once.

        To be called again once MPI has started: UCX takes SIGHUP for itself.
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
"""Those of this process."""
