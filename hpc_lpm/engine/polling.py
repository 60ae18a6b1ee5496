"""Waiting with a limit, without keeping the core busy: other ranks may need it."""

import os
import time
from collections.abc import Callable

_EAGER_SECONDS = 200e-6
_POLL_SECONDS = 50e-6


def wait_until(done: Callable[[], bool], limit_seconds: float) -> bool:
    """Ask `done` until it says yes; return whether it did so within the limit."""
    start = time.perf_counter()
    while not done():
        waited = time.perf_counter() - start
        if waited > limit_seconds:
            return False
        if waited > _EAGER_SECONDS:
            time.sleep(_POLL_SECONDS)
        else:
            # A rank that shares the core may be the one that is waited for.
            os.sched_yield()
    return True
