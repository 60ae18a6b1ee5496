"""Waiting for other ranks, never longer than a limit.

A rank that hangs or is gone must end a run with one sentence instead of holding it for ever.
`wait_until` polls whatever can be asked without blocking; the barrier, gathering and broadcast of a
`Job`, the channels between stages, averaged gradients and the agreement on a stop are built on it.
What cannot be polled, the making of torch's process groups, has torch's own limit, which
`making_process_groups` turns into a sentence.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from hpc_lpm.errors import TrainingError

Value = TypeVar("Value")

_EAGER_SECONDS = 200e-6
_POLL_SECONDS = 50e-6
LOOK_SECONDS = 0.25
"""How often a wait calls `look_around`."""

_WATCH: ContextVar[Callable[[], None] | None] = ContextVar("watch", default=None)


class Ranks(Protocol):
    """What is needed of a `Job` here."""

    rank: int
    size: int
    limit_seconds: float

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order, on every rank."""


def wait_until(done: Callable[[], bool], limit_seconds: float) -> bool:
    """Call `done` until it returns True; return False if it has not within the limit.

    Keeps the core busy for a moment only: another rank may need it. What `watching` has named is
    called every now and then, and ends the wait if it raises something.
    """
    start = time.perf_counter()
    next_look = LOOK_SECONDS
    while not done():
        waited = time.perf_counter() - start
        if waited > limit_seconds:
            return False
        if waited > next_look:
            next_look += LOOK_SECONDS
            look_around()
        if waited > _EAGER_SECONDS:
            time.sleep(_POLL_SECONDS)
        else:
            # A rank that shares the core may be the one that is waited for.
            os.sched_yield()
    return True


@contextmanager
def watching(watch: Callable[[], None] | None) -> Iterator[None]:
    """Let waits within call `watch`, which raises an error once it is in vain to wait."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def look_around() -> None:
    """Call what `watching` has named, if anything."""
    watch = _WATCH.get()
    if watch is not None:
        with watching(None):
            watch()


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

    if not wait_until(arrived, limit_seconds):
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
        TrainingError: if a rank does not come within torch's limit.
    """
    # The doctor's probes wait for ranks too, and need no torch.
    import torch.distributed

    try:
        yield
    except torch.distributed.DistError as error:
        raise TrainingError(
            f"rank {job.rank}: the ranks cannot form a process group within "
            f"{job.limit_seconds:g} s: one hangs or is gone, or a firewall is between them; raise "
            "--receive-timeout if it is only slow and, where hosts have several networks, set "
            "GLOO_SOCKET_IFNAME to the interface that joins them."
        ) from error
