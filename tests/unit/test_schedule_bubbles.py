"""Bubble and memory of the published schedules, against the formulas of their papers.

A bubble is what a step takes in steady state, from one update of a device to its next one, beyond
the passes of a device; there is no barrier between devices. All passes of a chunk take equally
long, F = I = W = 1, and messages take no time. `devices` is K, `micro_batches` is M.
"""

from itertools import pairwise

import pytest

from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.clock import PipelineClock
from hpc_lpm.schedules.controllable_memory import VHalf, VMin
from hpc_lpm.schedules.dualpipe_v import DualPipeV
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    SendActivation,
    SendGradient,
    Update,
)
from hpc_lpm.schedules.interleaved import Interleaved
from hpc_lpm.schedules.one_f_one_b import OneForwardOneBackward
from hpc_lpm.schedules.placement import Placement
from hpc_lpm.schedules.playback import play
from hpc_lpm.schedules.validate import check_schedule, validate
from hpc_lpm.schedules.zero_bubble import ZeroBubbleH1, ZeroBubbleH2
from hpc_lpm.schedules.zero_bubble_v import ZeroBubbleV

NEW = [
    *(Interleaved().with_chunks(chunks) for chunks in (1, 2, 3)),
    *(ZeroBubbleH1(), ZeroBubbleH2(), ZeroBubbleV(), DualPipeV(), VHalf(), VMin()),
]
IDS = [f"{schedule.name}, {schedule.chunks}" for schedule in NEW]

F = W = 1
B = 2


def of_name(name: str, chunks: int) -> Schedule:
    (found,) = [each for each in NEW if each.name == name and each.chunks == chunks]
    return found


def steady_bubbles(schedule: Schedule, devices: int, micro_batches: int) -> list[float]:
    """Return the bubble of every device."""
    stages = devices * schedule.chunks
    programmes = schedule.programmes(stages, micro_batches, 5 * micro_batches)
    return bubbles_of(programmes, schedule.placement(stages), micro_batches)


def bubbles_of(
    programmes: list[Programme], placement: Placement, micro_batches: int
) -> list[float]:
    """Return the bubble of every device in steps 2 and 3 of five, which must be the same."""
    clock = PipelineClock(
        [F] * placement.stages, [B] * placement.stages, [0] * (placement.stages - 1)
    )
    playback = play(programmes, clock, placement)
    assert playback.stopped == [None] * placement.devices
    bubbles = []
    for line in playback.timelines:
        ends = [each.end_seconds for each in line if isinstance(each.instruction, Update)]
        periods = {later - earlier for earlier, later in pairwise(ends[1:4])}
        assert len(periods) == 1
        bubbles.append(periods.pop() - micro_batches * (F + B) * placement.chunks)
    return bubbles


def in_pairs(programme: Programme, *, is_last: bool) -> Programme:
    """Put the messages of a forward and the whole backward behind it around the two of them.

    DeepSeek runs such a pair at the same time, but the very first one of the last device.
    """
    groups: list[tuple[Programme, Programme, Programme]] = []
    before: Programme = []
    for item in programme:
        if isinstance(item, ReceiveActivation | ReceiveGradient):
            before.append(item)
        elif isinstance(item, SendActivation | SendGradient | Update):
            groups[-1][2].append(item)
        else:
            groups.append((before, [item], []))
            before = []
    joined = [groups[0]]
    apart = is_last
    for group in groups[1:]:
        first, second = joined[-1][1][-1], group[1][0]
        pair = isinstance(first, Forward) and isinstance(second, Backward)
        if pair and not apart:
            joined[-1] = tuple(one + other for one, other in zip(joined[-1], group, strict=True))
        else:
            joined.append(group)
        apart = apart and not pair
    return [item for group in joined for part in group for item in part]


def most_held(schedule: Schedule, devices: int, micro_batches: int) -> int:
    """Count what a device holds in all its chunks from forwards to gradients of weights."""
    held = most = 0
    stages = devices * schedule.chunks
    for programme in schedule.programmes(stages, micro_batches, 3 * micro_batches):
        for item in programme:
            held += isinstance(item, Forward)
            held -= isinstance(item, Backward | BackwardWeights)
            most = max(most, held)
        assert held == 0
    return most


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("more", [0, 1])
class TestPublishedFormulas:
    """Each schedule at 2 K micro-batches per step, and at more."""

    def bubble_and_memory(self, schedule: Schedule, devices: int, more: int) -> tuple[float, float]:
        """Return the bubble, and the memory in micro-batches of all stages of a device."""
        micro_batches = devices * (2 + more)
        bubbles = set(steady_bubbles(schedule, devices, micro_batches))
        assert len(bubbles) == 1
        return bubbles.pop(), most_held(schedule, devices, micro_batches) / schedule.chunks

    def test_1f1b(self, devices: int, more: int) -> None:
        found = self.bubble_and_memory(OneForwardOneBackward(), devices, more)
        assert found == ((devices - 1) * (F + B), devices)

    @pytest.mark.parametrize("chunks", [1, 2, 3])
    def test_interleaved_has_the_bubble_of_one_chunk(
        self, devices: int, more: int, chunks: int
    ) -> None:
        found = self.bubble_and_memory(of_name("interleaved-1f1b", chunks), devices, more)
        bubble = (devices - 1) * (F + B)
        # Narayanan et al.: 1 + (K - 1) / (K v) times the memory of 1F1B.
        assert found == (bubble, pytest.approx(devices + (devices - 1) / chunks * (chunks > 1)))

    def test_zb_h1_needs_no_more_memory_than_1f1b(self, devices: int, more: int) -> None:
        found = self.bubble_and_memory(of_name("zb-h1", 1), devices, more)
        assert found == ((devices - 1) * (F + B - W - W), devices)

    def test_zb_h2_has_no_bubble_for_twice_the_memory(self, devices: int, more: int) -> None:
        found = self.bubble_and_memory(of_name("zb-h2", 1), devices, more)
        assert found == (0, 2 * devices - 1)

    def test_zb_v_has_no_bubble_at_the_memory_of_1f1b(self, devices: int, more: int) -> None:
        found = self.bubble_and_memory(of_name("zb-v", 2), devices, more)
        assert found == (0, devices)

    def test_dualpipe_v_as_an_engine_runs_it_that_runs_one_pass_after_the_other(
        self, devices: int, more: int
    ) -> None:
        found = self.bubble_and_memory(of_name("dualpipe-v", 2), devices, more)
        # Where the published formula has F&B, only the backward is waited for.
        assert found == ((devices - 1) * (B + B - 3 * W), (2 * devices + 1) / 2)

    def test_dualpipe_v_with_pairs_of_passes_that_send_at_their_end(
        self, devices: int, more: int
    ) -> None:
        schedule, stages, micro_batches = (
            of_name("dualpipe-v", 2),
            2 * devices,
            devices * (2 + more),
        )
        programmes = [
            in_pairs(programme, is_last=device == devices - 1)
            for device, programme in enumerate(
                schedule.programmes(stages, micro_batches, 5 * micro_batches)
            )
        ]
        bubbles = bubbles_of(programmes, schedule.placement(stages), micro_batches)
        # DeepSeek's table for PP = 2 K stages: (PP/2 - 1)(F&B + B - 3 W) with F&B = F + B.
        assert set(bubbles) == {(devices - 1) * (F + B + B - 3 * W)}

    def test_v_half_holds_about_half(self, devices: int, more: int) -> None:
        bubble, memory = self.bubble_and_memory(of_name("v-half", 2), devices, more)
        # The paper's table: (K + 2) / 2 rounded down; a bubble of about K (F + I + W) / 2, which is
        # the time of whole devices, of which a chunk takes half.
        assert memory == (devices + 2) // 2
        assert bubble <= devices * (F + B) / 2 * 2

    def test_v_min_holds_about_a_third(self, devices: int, more: int) -> None:
        bubble, memory = self.bubble_and_memory(of_name("v-min", 2), devices, more)
        # The paper's table: (K + 4) / 3 rounded down; a bubble of about 2 K (F + I + W) / 3.
        assert memory == (devices + 4) // 3
        assert bubble <= 2 * devices * (F + B) / 3 * 2


@pytest.mark.parametrize("schedule", NEW, ids=IDS)
@pytest.mark.parametrize("devices", range(1, 9))
def test_every_schedule_is_sound_for_any_number_of_micro_batches(
    schedule: Schedule, devices: int
) -> None:
    stages = devices * schedule.chunks
    for micro_batches in range(1, 4 * devices + 1):
        # A whole step and a shorter one, which is empty for a single micro-batch.
        total = micro_batches + micro_batches // 2
        validate(
            schedule.programmes(stages, micro_batches, total),
            micro_batches,
            total,
            schedule.in_flight_bounds(stages, micro_batches),
            schedule.placement(stages),
        )


@pytest.mark.parametrize("devices", [12, 13, 15, 16])
@pytest.mark.parametrize("name", ["v-half", "v-min"])
def test_building_blocks_fit_into_their_memory_for_more_devices(name: str, devices: int) -> None:
    schedule = of_name(name, 2)
    for micro_batches in (3, 2 * devices):
        programmes = schedule.programmes(2 * devices, micro_batches, micro_batches)
        bounds = schedule.in_flight_bounds(2 * devices, micro_batches)
        placement = schedule.placement(2 * devices)
        validate(programmes, micro_batches, micro_batches, bounds, placement)


@pytest.mark.parametrize("schedule", NEW, ids=IDS)
def test_schedules_are_accepted_as_if_they_were_a_users(schedule: Schedule) -> None:
    check_schedule(schedule)


@pytest.mark.parametrize("schedule", NEW, ids=IDS)
def test_only_schedules_that_say_so_split_backwards(schedule: Schedule) -> None:
    items = [item for each in schedule.programmes(4 * schedule.chunks, 8, 8) for item in each]
    assert any(isinstance(item, BackwardInput) for item in items) == schedule.splits_backward
