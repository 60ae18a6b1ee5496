from itertools import product

import numpy as np
import pandas as pd
import pytest

from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.quality import metrics_with
from hpc_lpm.campaign.statistics import (
    MINIMUM_RUNS,
    entrants_in,
    estimate,
    paired,
    paired_difference,
    paired_ratio,
    statistics_table,
)

SIX = [100.0, 101.5, 103.0, 104.5, 107.0, 112.0]


def contestant(strategy: str, planner: str = "") -> Entrant:
    return Entrant("m", "d", strategy, strategy, planner or None)


def identity(strategy: str, planner: str = "") -> dict[str, str]:
    names = {"strategy": strategy, "contestant": strategy, "planner": planner}
    return {"model": "m", "dataset": "d"} | names


def summary(
    speeds: dict[tuple[str, str], list[float]], accuracies: dict[str, list[float]] | None = None
) -> pd.DataFrame:
    """Return a summary; the n-th speed is that of repeat n of seed 0."""
    rows = []
    for (strategy, planner), values in speeds.items():
        for repeat, value in enumerate(values):
            accuracy = (accuracies or {}).get(strategy, [0.5] * len(values))[repeat]
            rows.append(
                identity(strategy, planner)
                | {
                    "trial": f"{strategy}{planner}{repeat}",
                    "seed": 0,
                    "repeat": repeat,
                    "samples_per_second": value,
                    "test_accuracy": accuracy,
                    "training_seconds": 1.0,
                    "final_train_loss": 0.1,
                    "peak_memory_bytes": 10,
                    "bytes_sent": 0,
                    "idle_share": 0.0,
                    "weights_sha256": "w",
                }
            )
    return pd.DataFrame(rows)


def test_the_interval_is_that_of_all_possible_resamples() -> None:
    # 6^6 resamples can be listed: the exact percentile interval, against which chance is small.
    medians = np.median(np.array(list(product(SIX, repeat=6))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    found = estimate(SIX)
    assert found.median == 103.75
    assert found.low == pytest.approx(low, abs=0.3)
    assert found.high == pytest.approx(high, abs=0.3)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    # Of normal values the percentile bootstrap of a median keeps about 92 % at this n.
    hits = 0
    for _ in range(100):
        found = estimate(random.normal(10.0, 1.0, size=12).tolist())
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 10.0 <= found.high
    assert hits >= 85


def test_the_same_values_give_the_same_interval() -> None:
    assert estimate(SIX) == estimate(list(SIX))


def test_too_few_values_give_a_range_and_say_so() -> None:
    few = estimate(SIX[: MINIMUM_RUNS - 1])
    assert (few.low, few.high) == (None, None)
    assert few.bounds() == (100.0, 107.0)
    assert few.text(1) == "103.0 (range 100.0 to 107.0, n = 5)"
    assert estimate([3.0]).text(1) == "3.0 (one run)"


def test_equal_values_give_an_interval_of_no_width() -> None:
    found = estimate([2.0] * 8)
    assert (found.low, found.high) == (2.0, 2.0)
    assert found.text(1) == "2.0 (95 % interval 2.0 to 2.0, n = 8)"


def test_no_value_has_no_estimate() -> None:
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_ratios_are_taken_between_runs_of_the_same_seed_and_repeat() -> None:
    # The machine halves its speed from run to run: the ratio of each pair is 2 all the same.
    table = summary({("fbp", ""): [400.0, 200.0, 100.0], ("sequential", ""): [200.0, 100.0, 50.0]})
    found = paired_ratio(table, contestant("fbp"), contestant("sequential"), "samples_per_second")
    assert found is not None
    assert (found.n, found.minimum, found.median, found.maximum) == (3, 2.0, 2.0, 2.0)


def test_the_order_of_rows_does_not_matter() -> None:
    table = summary({("fbp", ""): [300.0, 100.0], ("sequential", ""): [100.0, 50.0]})
    found = paired(
        table.iloc[::-1], contestant("fbp"), contestant("sequential"), "samples_per_second"
    )
    assert list(found["first"] / found["second"]) == [3.0, 2.0]


def test_a_run_whose_partner_is_missing_counts_in_no_ratio() -> None:
    table = summary({("fbp", ""): [300.0, 100.0, 70.0], ("sequential", ""): [100.0, 50.0]})
    found = paired_ratio(table, contestant("fbp"), contestant("sequential"), "samples_per_second")
    assert found is not None
    assert (found.n, found.median) == (2, 2.5)
    assert (
        paired_ratio(table, contestant("fbp"), contestant("horovod"), "samples_per_second") is None
    )


def test_accuracies_are_compared_by_their_difference() -> None:
    table = summary(
        {("fbp", ""): [1.0, 1.0], ("sequential", ""): [1.0, 1.0]},
        {"fbp": [0.93, 0.95], "sequential": [0.90, 0.94]},
    )
    found = paired_difference(table, contestant("fbp"), contestant("sequential"), "test_accuracy")
    assert found is not None
    assert found.median == pytest.approx(0.02)


def test_contestants_with_planners_meet_under_the_same_planner() -> None:
    speeds = {
        (strategy, planner): [1.0] for strategy in ("fbp", "1f1b") for planner in ("lpm", "uniform")
    }
    table = summary(speeds | {("sequential", ""): [1.0]})
    # As in a campaign that races several planners.
    several = table["planner"] != ""
    table.loc[several, "contestant"] += " (" + table["planner"] + ")"
    who = Entrant("m", "d", "fbp", "fbp (lpm)", "lpm")
    rivals = [(r.strategy, r.planner) for r in filter(who.meets, entrants_in(table))]
    assert rivals == [("1f1b", "lpm"), ("sequential", None)]


def test_the_table_holds_metrics_alone_and_against_each_rival() -> None:
    table = statistics_table(
        summary({("fbp", "lpm"): [300.0] * 6, ("sequential", ""): [100.0] * 6}), metrics_with([])
    )
    ratio = table[(table["strategy"] == "fbp") & (table["comparison"] == "ratio")].iloc[0]
    assert (ratio["relative_to"], ratio["median"], ratio["n"]) == ("sequential", 3.0, 6)
    assert (ratio["interval_low"], ratio["interval_high"], ratio["note"]) == (3.0, 3.0, "")
    alone = table[(table["strategy"] == "fbp") & (table["comparison"] == "")]
    assert "peak_memory_bytes" in set(alone["metric"])


def test_the_table_says_where_there_are_too_few_runs() -> None:
    table = statistics_table(summary({("fbp", "lpm"): [300.0, 310.0]}), metrics_with([]))
    assert table["interval_low"].isna().all()
    assert table["note"].str.contains("n = 2 is too few").all()


def test_no_runs_make_an_empty_table() -> None:
    empty = summary({("fbp", ""): [1.0]}).iloc[:0]
    assert statistics_table(empty, metrics_with([])).empty
