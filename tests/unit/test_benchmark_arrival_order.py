"""The order of arrival that FBP's fixed order is compared with, and the bound on all orders."""

import pytest

from benchmarks.arrival_order import arrival_period, fixed_period, least_period, limits, unequal
from hpc_lpm.schedules.clock import Jitter, PipelineClock


def test_equal_stages_without_messages_are_never_idle_in_either_order() -> None:
    clock, most = PipelineClock([1.0] * 4, [2.0] * 4, [0.0] * 3), limits(4, lead=1)
    assert most == [4, 3, 2, 1]
    assert arrival_period(clock, most, 400, None) == pytest.approx(3.0)
    assert least_period(clock, most) == 3.0


def test_one_micro_batch_in_flight_goes_all_the_way_before_the_next() -> None:
    clock = PipelineClock([1.0, 2.0], [3.0, 4.0], [0.5])
    assert arrival_period(clock, [1, 1], 100, None) == pytest.approx(1 + 2 + 4 + 3 + 2 * 0.5)
    assert least_period(clock, [1, 1]) == 11.0
    # With two there, the second stage's own passes and their way are what is waited for.
    assert arrival_period(clock, [2, 1], 100, None) == pytest.approx(6.0)


@pytest.mark.parametrize("seed", range(20))
def test_no_order_is_faster_than_the_bound(seed: int) -> None:
    clock, lead = unequal(2 + seed % 7, 0.4, 0.3 * (seed % 3), seed), 1 + seed % 2
    most = limits(len(clock.forward_seconds), lead)
    least = least_period(clock, most)
    assert arrival_period(clock, most, 600, None) >= 0.999 * least
    assert fixed_period(clock, 600, lead, None) >= 0.999 * least


def test_jitter_slows_an_order_of_arrival_down() -> None:
    clock, most = PipelineClock([1.0] * 6, [2.0] * 6, [0.0] * 5), limits(6, lead=1)
    slowed = arrival_period(clock, most, 2000, Jitter(sigma=0.4))
    assert 3.3 < slowed < 6.0
