"""Work that a custom autograd Function puts off to the second half of a backward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Work = Callable[[], None]

# Not of a thread: autograd runs what belongs to an accelerator in threads of its own.
_queues: list[list[Work]] = []


def defer(work: Work) -> None:
    """Put off work until the weights' gradients are computed, or do it at once.

    To be called in a Function's backward. Between the halves of a split backward pass `work` keeps
    alive what it refers to; in a whole backward pass, and in a second half, it runs at once.

    Args:
        work: has no result that the gradient of an input depends on.
    """
    if is_put_off():
        _queues[-1].append(work)
    else:
        work()


def is_put_off() -> bool:
    """Tell if `defer` puts work off: whether this is the first half of a split backward pass."""
    return bool(_queues)


@contextmanager
def deferring(queue: list[Work]) -> Iterator[None]:
    """Let `defer` append to `queue` within the block."""
    _queues.append(queue)
    try:
        yield
    finally:
        _queues.pop()
