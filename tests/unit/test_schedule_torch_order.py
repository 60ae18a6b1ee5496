"""The order of our schedules against the tables of torch.distributed.pipelining.

Only the tables are torch's: what computes an order takes no stages and starts nothing.
"""

from itertools import chain
from types import SimpleNamespace

import pytest
from torch.distributed.pipelining import schedules as theirs

from hpc_lpm.schedules.chunked import ChunkedSchedule
from hpc_lpm.schedules.dualpipe_v import DualPipeV
from hpc_lpm.schedules.interleaved import Interleaved
from hpc_lpm.schedules.zero_bubble_v import ZeroBubbleV


def their_order(
    kind: type, device: int, devices: int, chunks: int, micro_batches: int
) -> list[str]:
    """Return the passes of a row of torch's table as it writes them: stage, kind, micro-batch."""
    asked = SimpleNamespace(
        pp_group_size=devices,
        num_stages=devices * chunks,
        n_local_stages=chunks,
        number_of_rounds=max(1, micro_batches // devices),
        microbatches_per_round=micro_batches // max(1, micro_batches // devices),
        _n_microbatches=micro_batches,
    )
    row = kind._calculate_single_rank_operations(asked, device)
    passes = chain.from_iterable(item.sub_actions or [item] for item in row if item is not None)
    return [str(item) for item in passes]


def our_order(
    schedule: ChunkedSchedule, device: int, devices: int, micro_batches: int
) -> list[str]:
    placement = schedule.placement(devices * schedule.chunks)
    return [
        f"{placement.stage(device, item.chunk)}{item.symbol}{item.micro_batch}"
        for item in schedule.order(device, devices, micro_batches)
    ]


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("more", [-1, 0, 1, 7])
def test_zb_v_has_the_order_of_torch_also_where_micro_batches_are_few(
    devices: int, more: int
) -> None:
    for micro_batches in {1, devices, 2 * devices + more}:
        for device in range(devices):
            expected = their_order(theirs.ScheduleZBVZeroBubble, device, devices, 2, micro_batches)
            assert our_order(ZeroBubbleV(), device, devices, micro_batches) == expected


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("more", [0, 1, 7])
def test_dualpipe_v_has_the_order_of_torch(devices: int, more: int) -> None:
    micro_batches = 2 * devices + more
    for device in range(devices):
        expected = their_order(theirs.ScheduleDualPipeV, device, devices, 2, micro_batches)
        assert our_order(DualPipeV(), device, devices, micro_batches) == expected


@pytest.mark.parametrize("chunks", [2, 3])
@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_interleaved_1f1b_has_the_order_of_torch_where_groups_come_out_even(
    devices: int, chunks: int, rounds: int
) -> None:
    schedule, micro_batches = Interleaved().with_chunks(chunks), devices * rounds
    for device in range(devices):
        expected = their_order(
            theirs.ScheduleInterleaved1F1B, device, devices, chunks, micro_batches
        )
        assert our_order(schedule, device, devices, micro_batches) == expected
