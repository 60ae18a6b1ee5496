"""Holds the memory of torch.distributed's messages until they have left."""

import threading
from collections import deque
from contextlib import ExitStack
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Protocol

from torch import Tensor

from hpc_lpm.engine.collectives import wait_until


class SentMessages(Protocol):
    """The messages that a channel has sent and that may not have left yet."""

    def hold(self, tensor: Tensor, work: Any) -> None:
        """Hold a tensor until its work is done."""

    def release(self) -> None:
        """Release the memory of what has left."""

    def flush(self, limit_seconds: float) -> bool:
        """Wait until everything has left; return whether it has within the limit.

        Raises:
            RuntimeError: if the connection has broken.
        """


class PolledMessages:
    """For NCCL, whose works say when they are done."""

    def __init__(self) -> None:
        self._held: deque[tuple[Tensor, Any]] = deque()

    def hold(self, tensor: Tensor, work: Any) -> None:
        """Hold the tensor behind the others."""
        self._held.append((tensor, work))

    def release(self) -> None:
        """Release the oldest tensors, as far as their works are done."""
        while self._held and self._held[0][1].is_completed():
            self._held.popleft()

    def flush(self, limit_seconds: float) -> bool:
        """Poll until the last work is done."""

        def done() -> bool:
            self.release()
            return not self._held

        return wait_until(done, limit_seconds)


class AwaitedMessages:
    """For gloo, whose works do not say when they are done unless somebody waits: a thread does.

    A wait that times out breaks the connection, so polling with a zero timeout is not an option.

    Args:
        resources: end the thread, once it has waited for all that was sent before.
    """

    def __init__(self, resources: ExitStack) -> None:
        self._held: SimpleQueue[tuple[Tensor, Any] | None] = SimpleQueue()
        self._changed = threading.Condition()
        self._count = 0
        self._error: RuntimeError | None = None
        threading.Thread(target=self._run, name="sent-messages", daemon=True).start()
        resources.callback(self._held.put, None)

    def hold(self, tensor: Tensor, work: Any) -> None:
        """Hand the tensor and its work to the thread."""
        with self._changed:
            self._count += 1
        self._held.put((tensor, work))

    def release(self) -> None:
        """Do nothing: the thread releases the tensors."""

    def flush(self, limit_seconds: float) -> bool:
        """Wait until the thread has released everything."""
        with self._changed:
            finished = self._changed.wait_for(
                lambda: self._count == 0 or self._error is not None, limit_seconds
            )
            if self._error is not None:
                raise self._error
            return finished

    def _run(self) -> None:
        while self._wait_for_next():
            pass

    def _wait_for_next(self) -> bool:
        """Wait for one message; a method of its own, so that no variable of the loop holds it.

        Returns False once there is nothing more to wait for.
        """
        held = self._held.get()
        if held is None:
            return False
        _, work = held
        try:
            work.wait(_FOR_EVER)
        except RuntimeError as error:
            with self._changed:
                self._error = error
                self._changed.notify()
            return False
        with self._changed:
            self._count -= 1
            self._changed.notify()
        return True


_FOR_EVER = timedelta(days=365)
"""This wait needs no limit, for it only holds memory: whoever needs the message has one."""
