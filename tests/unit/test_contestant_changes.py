from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from test_statistics import summary

from hpc_lpm.campaign.comparison.change import Change
from hpc_lpm.campaign.comparison.contestants import ContestantChange, contestant_changes
from hpc_lpm.campaign.quality import metrics_with

SLOW = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
FAST = [1.2 * value for value in SLOW]


def changes_of(a: pd.DataFrame, b: pd.DataFrame) -> list[ContestantChange]:
    return contestant_changes(a, b, metrics_with([]))


def entry_of(
    a: pd.DataFrame, b: pd.DataFrame, metric: str, strategy: str = "fbp"
) -> ContestantChange:
    (found,) = (
        entry
        for entry in changes_of(a, b)
        if (entry.who.strategy, entry.change.metric) == (strategy, metric)
    )
    return found


def speed_change(first: list[float], second: list[float]) -> Change:
    a, b = (summary({("fbp", "lpm"): speeds}) for speeds in (first, second))
    return entry_of(a, b, "samples_per_second").change


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (SLOW, FAST, "better"),
        (FAST, SLOW, "worse"),
        (SLOW, SLOW, "inconclusive"),
        (SLOW, [value + 0.5 for value in SLOW], "inconclusive"),
    ],
)
def test_a_change_is_called_so_only_if_the_interval_leaves_one_out(
    first: list[float], second: list[float], verdict: str
) -> None:
    change = speed_change(first, second)
    assert change.verdict == verdict
    assert change.ratio is not None
    assert change.low is not None
    assert change.high is not None
    assert change.low <= change.ratio <= change.high


def test_few_runs_are_inconclusive_however_far_apart() -> None:
    change = speed_change(SLOW[:5], [10 * value for value in SLOW])
    assert (change.verdict, change.low, change.high) == ("inconclusive", None, None)
    assert change.note == "fewer than 6 runs"


def test_values_that_are_all_the_same_are_inconclusive() -> None:
    change = speed_change([100.1] * 6, [100.1] * 7)
    assert (change.ratio, change.low, change.high) == (1.0, 1.0, 1.0)
    assert change.verdict == "inconclusive"


@pytest.mark.parametrize(("factor", "verdict"), [(0.5, "better"), (2, "worse")])
@pytest.mark.parametrize("metric", ["peak_memory_bytes", "bytes_sent"])
def test_less_memory_and_traffic_is_better(metric: str, factor: float, verdict: str) -> None:
    a = summary({("fbp", "lpm"): SLOW}).assign(peak_memory_bytes=10, bytes_sent=10)
    change = entry_of(a, a.assign(**{metric: factor * 10}), metric).change
    assert (change.ratio, change.verdict) == (factor, verdict)


def test_what_was_nothing_has_no_ratio() -> None:
    a = summary({("fbp", "lpm"): SLOW})
    assert [e.change.metric for e in changes_of(a, a)].count("bytes_sent") == 0
    change = entry_of(a, a.assign(bytes_sent=10), "bytes_sent").change
    assert (change.ratio, change.verdict, change.note) == (None, "inconclusive", "0 in A")


def test_the_speedup_does_not_follow_the_machine() -> None:
    # Everything runs at twice the speed in B, and drifts alike for both strategies within it.
    a = summary({("fbp", "lpm"): FAST, ("sequential", ""): SLOW})
    b = a.assign(samples_per_second=2 * a["samples_per_second"])
    assert entry_of(a, b, "samples_per_second").change.verdict == "better"
    speedup = entry_of(a, b, "speedup_over_sequential").change
    assert (speedup.ratio, speedup.verdict) == (pytest.approx(1.0), "inconclusive")


def test_speedups_that_differ_by_rounding_alone_are_inconclusive() -> None:
    a = summary({("fbp", "lpm"): [320.0] * 6, ("sequential", ""): [200.0] * 6})
    b = a.assign(samples_per_second=1.1 * a["samples_per_second"])
    speedup = entry_of(a, b, "speedup_over_sequential").change
    assert speedup.low != 1.0  # or there is nothing to round
    assert speedup.verdict == "inconclusive"


def test_sequential_training_has_no_speedup_over_itself() -> None:
    a = summary({("sequential", ""): SLOW})
    metrics = {entry.change.metric for entry in changes_of(a, a)}
    assert metrics == {"samples_per_second", "test_accuracy", "peak_memory_bytes"}


def accuracies(by_seed: dict[int, Sequence[float]]) -> pd.DataFrame:
    """Return a summary of one strategy; each seed has its accuracies, a repeat each."""
    rows = [(seed, *pair) for seed, values in by_seed.items() for pair in enumerate(values)]
    table = summary({("fbp", "lpm"): [100.0] * len(rows)})
    return table.assign(
        seed=[row[0] for row in rows],
        repeat=[row[1] for row in rows],
        test_accuracy=[row[2] for row in rows],
    )


def test_accuracies_are_compared_seed_by_seed_in_points() -> None:
    # Seeds differ by far more than the change, which is the same for each of them.
    a = accuracies({seed: [0.5 + 0.05 * seed] for seed in range(6)})
    b = accuracies({seed: [0.51 + 0.05 * seed] for seed in reversed(range(8))})
    entry = entry_of(a, b, "test_accuracy")
    assert entry.common_seeds == 6
    assert entry.change.ratio is None
    assert entry.change.difference_points == pytest.approx(1.0)
    assert entry.change.verdict == "better"


def test_repeats_of_a_seed_prove_nothing_about_accuracy() -> None:
    entry = entry_of(accuracies({0: [0.90] * 8}), accuracies({0: [0.95] * 8}), "test_accuracy")
    assert (entry.common_seeds, entry.change.verdict) == (1, "inconclusive")
    assert entry.change.note == "fewer than 6 common seeds"


def test_the_same_accuracies_differ_by_nothing_however_often_they_were_repeated() -> None:
    seeds = range(6)
    a = accuracies({seed: [0.1] * 2 for seed in seeds})
    change = entry_of(a, accuracies({seed: [0.1] * 3 for seed in seeds}), "test_accuracy").change
    assert (change.low, change.high, change.verdict) == (0.0, 0.0, "inconclusive")


def test_without_a_common_seed_accuracies_are_not_compared() -> None:
    a = accuracies({seed: [0.9] for seed in range(6)})
    entry = entry_of(a, a.assign(seed=a["seed"] + 6), "test_accuracy")
    assert entry.change.value is None
    assert entry.change.note == "no common seed"


def test_an_accuracy_that_was_not_measured_is_left_out() -> None:
    a = summary({("fbp", "lpm"): SLOW})
    changes = changes_of(a, a.assign(test_accuracy=np.nan))
    assert "test_accuracy" not in {entry.change.metric for entry in changes}


def test_a_contestant_of_one_campaign_alone_has_no_change() -> None:
    a, b = summary({("fbp", "lpm"): SLOW}), summary({("horovod", ""): SLOW})
    assert changes_of(a, b) == []
    assert changes_of(a, b.iloc[:0]) == []


def labelled(table: pd.DataFrame, strategy: str, label: str) -> pd.DataFrame:
    names = table["contestant"].where(table["strategy"] != strategy, label)
    return table.assign(contestant=names)


def test_contestants_of_one_strategy_are_told_apart_by_their_labels() -> None:
    live, replay = (
        labelled(summary({("fbp", "lpm"): speeds}), "fbp", label)
        for label, speeds in (("live", FAST), ("replay", SLOW))
    )
    a = pd.concat([live, replay], ignore_index=True)
    changes = {
        entry.who.label: entry.change.ratio
        for entry in changes_of(a, a.iloc[::-1])
        if entry.change.metric == "samples_per_second"
    }
    assert changes == {"live": pytest.approx(1.0), "replay": pytest.approx(1.0)}


def test_a_contestant_that_was_renamed_is_found_by_its_strategy_if_that_is_unambiguous() -> None:
    a = summary({("fbp", "lpm"): SLOW, ("sequential", ""): SLOW})
    b = labelled(a, "fbp", "fbp-replay")
    assert {entry.who.label for entry in changes_of(a, b)} == {"fbp-replay", "sequential"}
    both = pd.concat([b, labelled(a, "fbp", "fbp-live")], ignore_index=True)
    assert {entry.who.label for entry in changes_of(a, both)} == {"sequential"}


def test_a_second_planner_in_one_campaign_does_not_hide_the_first() -> None:
    a = summary({("fbp", "lpm"): SLOW})
    b = summary({("fbp", "lpm"): FAST, ("fbp", "uniform"): FAST})
    b = b.assign(contestant=b["contestant"] + " (" + b["planner"] + ")")
    assert {entry.who.label for entry in changes_of(a, b)} == {"fbp (lpm)"}
