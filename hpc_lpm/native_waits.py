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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from hpc_lpm.ranks import rank_from_environment

DEFAULT_LIMIT_SECONDS = 600.0
"""How long a rank waits for another one unless told otherwise."""

EXIT_CODE = 1
_TURN_SECONDS = 5.0
"""How much longer later ranks wait, so that one speaks for all; the first may be missing."""


_LONGEST_PAUSE_SECONDS, _PAUSES = 5.0, 40
"""How often a thread that guards several waits looks: so often within the limit, or oftener."""


def _nobody_knows() -> None:
    return None


@contextmanager
def bounded_by_thread(
    limit_seconds: float, rank: int, what: str, blame: Callable[[], str | None] = _nobody_knows
) -> Iterator[None]:
    """End this process with a sentence if the `with` block takes longer than the limit.

    Args:
        limit_seconds: how long it may take; ranks other than the first wait a little longer.
        rank: of this process.
        what: the first words of the sentence, such as `a broadcast`.
        blame: says which rank is waited for, None if it does not know.
    """

    def end() -> None:
        _end(_sentence(limit_seconds, rank, what, blame()))

    timer = threading.Timer(_patience(limit_seconds, rank), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class WaitGuard:
    """Does the same for waits that come again at every step: one thread guards them all.

    The arguments are those of `bounded_by_thread`.
    """

    def __init__(
        self, limit_seconds: float, rank: int, what: str, blame: Callable[[], str | None]
    ) -> None:
        self._limit_seconds, self._rank, self._what, self._blame = limit_seconds, rank, what, blame
        self._since: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="guard of waits", daemon=True).start()

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """End this process with a sentence if the `with` block takes longer than the limit."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._since = None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _watch(self) -> None:
        patience = _patience(self._limit_seconds, self._rank)
        while not self._closed.wait(min(_LONGEST_PAUSE_SECONDS, self._limit_seconds / _PAUSES)):
            since = self._since
            if since is not None and time.perf_counter() - since > patience:
                _end(_sentence(self._limit_seconds, self._rank, self._what, self._blame()))


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
        _guard(
            reader,
            parent,
            _patience(limit_seconds, rank),
            lambda: _sentence(limit_seconds, rank, what, _stopped_beside(parent)),
        )
    os.close(reader)
    try:
        yield
    finally:
        os.close(writer)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _sentence(limit_seconds: float, rank: int, what: str, blamed: str | None = None) -> bytes:
    why = blamed or "another rank hangs or is gone; raise --receive-timeout if it is only slow."
    where = f"rank {rank} on {platform.node()}"
    return f"hpc-lpm: {where}: {what} takes more than {limit_seconds:g} s: {why}\n".encode()


def _patience(limit_seconds: float, rank: int) -> float:
    waiting = limit_seconds + (_TURN_SECONDS + 0.2 * rank if rank else 0.0)
    return min(waiting, threading.TIMEOUT_MAX)


def _end(sentence: bytes) -> None:
    _say(sentence)
    os._exit(EXIT_CODE)


def _stopped_beside(process: int) -> str | None:
    """Say which ranks that the launcher of a process has started on this machine are stopped."""
    stopped = []
    with suppress(psutil.Error):
        for each in psutil.Process(psutil.Process(process).ppid()).children():
            with suppress(psutil.Error):  # it may end meanwhile
                if each.status() == psutil.STATUS_STOPPED:
                    stopped.append((rank_from_environment(each.environ()), each.pid))
    if not stopped:
        return None
    ranks = " and ".join(f"rank {rank} (process {number})" for rank, number in sorted(stopped))
    return (
        f"another rank hangs or is gone: {ranks}, stopped by a signal, goes on after `kill -CONT`; "
        "raise --receive-timeout if it is only slow."
    )


def _guard(reader: int, parent: int, seconds: float, sentence: Callable[[], bytes]) -> None:
    """End the parent, unless it closes its end of the pipe in time; never return."""
    try:
        # What stops the ranks must not take their guard first.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        if not select.select([reader], [], [], seconds)[0] and os.getppid() == parent:
            _say(sentence())
            os.kill(parent, signal.SIGALRM)
            time.sleep(1.0)
            if os.getppid() == parent:
                os.kill(parent, signal.SIGKILL)
    finally:
        os._exit(0)


def _say(sentence: bytes) -> None:
    with suppress(OSError, ValueError):  # nobody may be there to read it
        os.write(sys.stderr.fileno(), sentence)
