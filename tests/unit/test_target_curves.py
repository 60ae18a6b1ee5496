"""The rules by which steps to a target are found, on curves that are worked out by hand."""

import math

import pytest

from hpc_lpm.campaign.curves import Curve, baseline_target, crossing, default_window, smoothed


def curve(*points: tuple[float, float], seconds_a_step: float = 0.5) -> Curve:
    steps, values = zip(*points, strict=True)
    return Curve(steps, tuple(seconds_a_step * step for step in steps), values)


def test_a_loss_is_the_mean_of_the_last_steps_once_there_are_enough() -> None:
    assert smoothed([4.0, 2.0, 3.0, 1.0], 2) == [3.0, 2.5, 2.0]
    assert smoothed([4.0, 2.0], 1) == [4.0, 2.0]


def test_a_run_shorter_than_the_window_has_the_mean_of_all_of_it() -> None:
    assert smoothed([4.0, 2.0], 5) == [3.0]
    assert smoothed([], 5) == []


def test_a_loss_that_was_not_finite_leaves_out_its_windows_alone() -> None:
    values = smoothed([4.0, None, 3.0, 1.0, 1.0], 2)
    assert [math.isnan(value) for value in values] == [True, True, False, False]
    assert values[2:] == [2.0, 1.0]


@pytest.mark.parametrize(("steps", "window"), [(800, 40), (132, 7), (6, 1), (1, 1)])
def test_the_window_is_a_twentieth_of_the_run(steps: int, window: int) -> None:
    assert default_window(steps) == window


def test_between_two_points_a_curve_is_straight() -> None:
    # Half of the way from 2 to 1 lies at 1.5, a quarter of the way at 1.75.
    losses = curve((10, 3.0), (20, 2.0), (40, 1.0))
    assert crossing(losses, 1.5, lower=True) == 30.0
    assert crossing(losses, 1.75, lower=True) == 25.0
    assert losses.seconds_after(30.0) == 15.0


def test_the_first_crossing_counts_though_the_curve_turns_back() -> None:
    accuracies = curve((1, 0.5), (2, 0.9), (3, 0.6), (4, 0.95))
    assert crossing(accuracies, 0.7, lower=False) == pytest.approx(1.5)


def test_a_value_equal_to_the_target_has_reached_it() -> None:
    assert crossing(curve((1, 3.0), (2, 2.0)), 2.0, lower=True) == 2.0


def test_a_curve_that_starts_beyond_the_target_crosses_at_its_first_point() -> None:
    assert crossing(curve((5, 1.0), (9, 3.0)), 2.0, lower=True) == 5.0


def test_a_curve_that_never_gets_there_takes_for_ever() -> None:
    assert crossing(curve((1, 3.0), (2, 2.5)), 2.0, lower=True) == math.inf
    assert crossing(curve((1, math.nan)), 2.0, lower=True) == math.inf


def test_behind_a_missing_value_nothing_is_interpolated() -> None:
    assert crossing(curve((1, 3.0), (2, math.nan), (3, 1.0)), 2.0, lower=True) == 3.0


def test_the_baseline_gives_the_value_at_95_percent_of_its_median_gain() -> None:
    # They gain 1, 2 and 3 from 4, 4 and 5: 4 - 0.95 x 2.
    runs = [curve((1, 4.0), (9, 3.0)), curve((1, 4.0), (9, 2.0)), curve((1, 5.0), (9, 2.0))]
    assert baseline_target(runs, lower=True) == pytest.approx(2.1)
    shares = [curve((1, 0.2), (2, 0.3), (9, 0.8))]
    assert baseline_target(shares, lower=False) == pytest.approx(0.77)


def test_a_baseline_that_gains_nothing_gives_no_target() -> None:
    assert baseline_target([], lower=True) is None
    assert baseline_target([curve((1, 2.0), (9, 2.0))], lower=True) is None
    assert baseline_target([curve((1, 2.0), (9, 3.0))], lower=True) is None
    assert baseline_target([curve((1, 2.0), (9, math.nan))], lower=True) is None
