"""Times and losses of work that Python only queues."""

import pytest
import torch

from hpc_lpm.engine.pipeline.boundary import TensorSpec
from hpc_lpm.engine.pipeline.transport.memory import StagedMemory
from hpc_lpm.engine.recorder import Recorder
from hpc_lpm.profiling.timer import timer_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

GPU = torch.device("cuda", 0)
CYCLES = 200_000_000
"""About 0.1 s of a kernel that only waits."""


def queue_step(recorder: Recorder, cycles: int, loss: float) -> None:
    start = recorder.start()
    torch.cuda._sleep(cycles)
    recorder.add("forward", 0, start)
    recorder.add_loss(torch.tensor(loss, device=GPU))
    recorder.end_step()


def test_queued_work_is_timed_and_reading_a_loss_waits_for_none_of_it() -> None:
    reported: list[tuple[int, float | None, float, bool]] = []
    recorder = Recorder(8, lambda *values: reported.append(values), timer_for(GPU))
    torch.cuda.synchronize()
    recorder.begin_segment()
    queue_step(recorder, 1000, 1.0)
    torch.cuda._sleep(1000)
    queue_step(recorder, CYCLES, 3.0)
    assert reported[0][:2] == (0, 1.0)
    assert not torch.cuda.current_stream().query(), "the second step still runs"
    recorder.end_segment()
    assert [entry[:2] for entry in reported] == [(0, 1.0), (1, 3.0)]
    (epoch,) = recorder.segments
    short, long = epoch.intervals
    assert long.duration_seconds > 0.02 > short.duration_seconds
    assert epoch.busy_seconds == pytest.approx(short.duration_seconds + long.duration_seconds)
    assert epoch.end_seconds >= epoch.busy_seconds


def test_staged_messages_come_out_as_they_went_in_although_copies_are_queued() -> None:
    memory = StagedMemory(GPU)
    torch.cuda._sleep(CYCLES)
    sent = torch.randn(64, 33, device=GPU).t()
    staged = memory.leaving(sent)
    assert staged.is_pinned() and staged.is_contiguous()
    assert torch.equal(staged, sent.cpu())
    received = memory.buffer(TensorSpec((33, 64), torch.float32)).copy_(staged)
    assert torch.equal(memory.arrived(received), sent)
