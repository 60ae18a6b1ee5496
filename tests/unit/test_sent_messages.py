"""The memory of messages is held until they have left, by nothing that outlives their run."""

import threading
from contextlib import ExitStack
from datetime import timedelta

import torch

from hpc_lpm.engine.pipeline.transport.sent import AwaitedMessages

PATIENCE_SECONDS = 60.0


class Work:
    """A message that leaves when the test says so."""

    def __init__(self) -> None:
        self.leaves = threading.Event()

    def wait(self, _: timedelta) -> None:
        self.leaves.wait()


def waiting_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "sent-messages"}


def test_the_thread_of_a_channel_ends_with_its_run_once_all_messages_have_left() -> None:
    before, work = waiting_threads(), Work()
    with ExitStack() as resources:
        sent = AwaitedMessages(resources)
        (thread,) = waiting_threads() - before
        sent.hold(torch.empty(1), work)
    assert not sent.flush(0.0)
    work.leaves.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert sent.flush(0.0)
