"""Limits on what may hang for ever: a mount, a lock service, MPI's own start and end."""

import math
import signal
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def bound_process(seconds: float) -> None:
    """Have this process ended after so many seconds, whatever it hangs in.

    A later call replaces an earlier one. The operating system does it, since no code of ours may
    come to run in a process that hangs in MPI.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(seconds))


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, in a thread that is left behind if it hangs.

    Raises:
        TimeoutError: if it has not returned within `seconds`.
        OSError: the one that it raised.
    """
    outcome: list[T] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            outcome.append(work())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return outcome[0]
