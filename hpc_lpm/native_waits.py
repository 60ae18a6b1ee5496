"""Waits inside a library that take no time limit, such as MPI's start, bounded from outside.

What cannot be interrupted cannot raise an error either: the process ends with a sentence, upon
which the launcher ends the other ranks. Everything that can be asked without blocking is waited for
in `engine.collectives` instead.
"""

import os
import platform
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DEFAULT_LIMIT_SECONDS = 600.0
"""How long a rank waits for another one unless told otherwise."""

EXIT_CODE = 1
_TURN_SECONDS = 5.0
"""How much longer later ranks wait, so that one speaks for all; the first may be missing."""


@contextmanager
def bounded_by_thread(limit_seconds: float, rank: int, what: str) -> Iterator[None]:
    """End this process with a sentence if the `with` block takes longer than the limit.

    Args:
        limit_seconds: how long it may take; ranks other than the first wait a little longer.
        rank: of this process.
        what: the first words of the sentence, such as `a broadcast`.
    """
    sentence = _sentence(limit_seconds, rank, what)
    timer = threading.Timer(_patience(limit_seconds, rank), _end, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def bounded_by_child(limit_seconds: float, rank: int, what: str) -> Iterator[None]:
    """Do the same where no thread of Python runs meanwhile, as while MPI starts: by a child.

    Use it before MPI has started, which does not expect its processes to fork.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(writer)
        _guard(reader, parent, _patience(limit_seconds, rank), _sentence(limit_seconds, rank, what))
    os.close(reader)
    try:
        yield
    finally:
        os.close(writer)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _sentence(limit_seconds: float, rank: int, what: str) -> bytes:
    return (
        f"hpc-lpm: rank {rank} on {platform.node()}: {what} takes more than {limit_seconds:g} s: "
        "another rank hangs or is gone; raise --receive-timeout if it is only slow.\n"
    ).encode()


def _patience(limit_seconds: float, rank: int) -> float:
    waiting = limit_seconds + (_TURN_SECONDS + 0.2 * rank if rank else 0.0)
    return min(waiting, threading.TIMEOUT_MAX)


def _end(sentence: bytes) -> None:
    _say(sentence)
    os._exit(EXIT_CODE)


def _guard(reader: int, parent: int, seconds: float, sentence: bytes) -> None:
    """End the parent, unless it closes its end of the pipe in time; never return."""
    try:
        # What stops the ranks must not take their guard first.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        if not select.select([reader], [], [], seconds)[0] and os.getppid() == parent:
            _say(sentence)
            os.kill(parent, signal.SIGALRM)
            time.sleep(1.0)
            if os.getppid() == parent:
                os.kill(parent, signal.SIGKILL)
    finally:
        os._exit(0)


def _say(sentence: bytes) -> None:
    with suppress(OSError, ValueError):  # nobody may be there to read it
        os.write(sys.stderr.fileno(), sentence)
