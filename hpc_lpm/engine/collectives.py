"""Waiting for other ranks, never longer than a limit.

A rank that hangs or is gone must end a run with one sentence instead of holding it for ever.
`wait_until` polls whatever can be asked without blocking; the barrier, gathering and broadcast of a
`Job`, the channels between stages, averaged gradients and the agreement on a stop are built on it.
What cannot be polled, the making of torch's process groups, has torch's own limit, which
`making_process_groups` turns into a sentence.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from hpc_lpm.engine.waits import WAITS
from hpc_lpm.errors import TrainingError

Value = TypeVar("Value")

_EAGER_SECONDS = 200e-6
_POLL_SECONDS = 50e-6
_LOOK_SECONDS = 0.25
"""How often a wait calls `_look_around`."""

_NEARLY = 0.9
"""The share of a time limit after which it counts as passed: clocks and libraries round."""

_TOLD_CHARACTERS = 200

_DEFAULT_LIMITS = ("default_pg_timeout", "default_pg_nccl_timeout")
"""Where torch.distributed has the time limits of groups that are made without one."""

_WATCH: ContextVar[Callable[[], None] | None] = ContextVar("watch", default=None)


class Ranks(Protocol):
    """What is needed of a `Job` here."""

    rank: int
    size: int
    limit_seconds: float

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""


def wait_until(
    done: Callable[[], bool],
    limit_seconds: float,
    longest_pause_seconds: float = _POLL_SECONDS,
    *,
    peer: int | None = None,
) -> bool:
    """Call `done` until it returns True; return False if it has not within the limit.

    Keeps the core busy for a moment only: another rank may need it. What `watching` has named is
    called every now and then, and ends the wait if it raises something. The pauses between calls
    become longer up to `longest_pause_seconds`, for what takes long to ask. `peer` is the rank that
    is waited for, None for all.
    """
    start = time.perf_counter()
    next_look, pause = _LOOK_SECONDS, _POLL_SECONDS
    while not done():
        waited = time.perf_counter() - start
        if waited > limit_seconds:
            # What is waited for is left for those who ask why a run has ended.
            return False
        if waited > next_look:
            next_look += _LOOK_SECONDS
            WAITS.begin(start, peer)
            _look_around()
        if waited > _EAGER_SECONDS:
            time.sleep(pause)
            pause = min(2 * pause, longest_pause_seconds)
        else:
            # A rank that shares the core may be the one that is waited for.
            os.sched_yield()
    if next_look > _LOOK_SECONDS:
        WAITS.end()
    return True


@contextmanager
def watching(watch: Callable[[], None] | None) -> Iterator[None]:
    """Let waits within call `watch`, which raises an error once it is in vain to wait."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def _look_around() -> None:
    """Call what `watching` has named, if anything."""
    watch = _WATCH.get()
    if watch is not None:
        with watching(None):
            watch()


def run_watched(action: Callable[[], Any]) -> None:
    """Run what waits by itself and cannot be polled, such as a receive of gloo.

    Where something is `watching`, this is done in a thread, which is left behind if the watch
    raises an error.
    """
    if _WATCH.get() is None:
        action()
        return
    helper = _HELPERS.pop() if _HELPERS else _Helper()
    helper.begin(action)
    while not helper.has_ended(_LOOK_SECONDS):
        _look_around()
    _HELPERS.append(helper)
    if helper.error is not None:
        raise helper.error


class _Helper:
    """A thread that runs one action after the other: making one for each takes too long."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._actions: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="watched wait", daemon=True).start()

    def begin(self, action: Callable[[], Any]) -> None:
        """Let the thread run an action."""
        self.error = None
        self._ended.clear()
        self._actions.put(action)

    def has_ended(self, seconds: float) -> bool:
        """Tell if the action ends within so many seconds; `error` is what it has raised."""
        return self._ended.wait(seconds)

    def _run(self) -> None:
        while True:
            action = self._actions.get()
            try:
                action()
            except Exception as error:
                self.error = error
            del action  # and what it holds
            self._ended.set()


_HELPERS: list[_Helper] = []


def receive_object(communicator: Any, source: int, tag: int, limit_seconds: float) -> Any:
    """Return the Python object that a rank sends over an mpi4py communicator.

    Raises:
        TimeoutError: if it does not come within the limit.
    """
    messages: list[Any] = []

    def arrived() -> bool:
        message = communicator.improbe(source=source, tag=tag)
        if message is not None:
            messages.append(message)
        return message is not None

    if not wait_until(arrived, limit_seconds, peer=source):
        raise TimeoutError
    return messages[0].recv()


def run_on_every_rank(
    job: Ranks,
    action: Callable[[], Value],
    expected: tuple[type[Exception], ...],
    failure: Callable[[str, str], Exception],
) -> list[Value]:
    """Run an action on every rank and return their results; raise everywhere if any fails.

    Args:
        job: the ranks, each of which calls this (collective).
        action: what this rank does.
        expected: the errors that the action may raise.
        failure: makes the exception that every rank raises, from the text of the first rank's error
            and from ` (rank N)`, which is empty if there is only one rank.

    Raises:
        Exception: the one that `failure` has made.
    """
    value, problem = None, None
    try:
        value = action()
    except expected as error:
        problem = " ".join(str(error).split()).rstrip(".")
    outcomes = job.all_gather((value, problem))
    for rank, (_, found) in enumerate(outcomes):
        if found is not None:
            raise failure(found, f" (rank {rank})" if job.size > 1 else "")
    return [value for value, _ in outcomes]


@contextmanager
def making_process_groups(job: Ranks) -> Iterator[None]:
    """Surround code that makes torch's process groups, which every rank must run (collective).

    Raises:
        TrainingError: if a rank does not come within torch's limit, or the network refuses.
    """
    # The doctor's probes wait for ranks too, and need no torch.
    import torch.distributed

    start = time.perf_counter()
    try:
        with _groups_with_limit(job.limit_seconds):
            yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        seconds = time.perf_counter() - start
        slow = " raise --receive-timeout if it is only slow and,"
        raise TrainingError(
            f"rank {job.rank}: the ranks cannot form a process group "
            f"{how_it_ended(error, seconds, job.limit_seconds)}: one hangs or is gone, or a "
            f"firewall is between them;{slow if has_passed(seconds, job.limit_seconds) else ''} "
            "where hosts have several networks, set GLOO_SOCKET_IFNAME to the interface that joins "
            "them."
        ) from error


def has_passed(seconds: float, limit_seconds: float) -> bool:
    """Tell if what has taken so long has ended since its time limit was over."""
    return seconds >= _NEARLY * limit_seconds


def how_it_ended(error: Exception, seconds: float, limit_seconds: float) -> str:
    """Return, for a sentence, how long torch has waited in vain, or what it says has happened."""
    if has_passed(seconds, limit_seconds):
        return f"within {limit_seconds:g} s"
    told = " ".join(str(error).partition("\n")[0].split())[:_TOLD_CHARACTERS].rstrip(". ")
    return f"({told}, after {seconds:.1f} s)"


@contextmanager
def _groups_with_limit(limit_seconds: float) -> Iterator[None]:
    """Have groups that libraries make give up after the limit, not after torch's half an hour.

    What DeepSpeed sums among the ranks when an engine is made, it sums in groups of its own.
    """
    from torch.distributed import distributed_c10d

    limit = timedelta(seconds=limit_seconds)
    before = {name: getattr(distributed_c10d, name) for name in _DEFAULT_LIMITS}
    try:
        for name in _DEFAULT_LIMITS:
            setattr(distributed_c10d, name, limit)
        yield
    finally:
        for name, value in before.items():
            setattr(distributed_c10d, name, value)
