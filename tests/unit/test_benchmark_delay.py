"""The delay benchmark: steps to a target, its tables, and that it goes on where it was stopped."""

import math
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.delay.emulated_steps import MEAN_STAGE_SECONDS, equal_passes, planned_passes
from benchmarks.delay.families import FAMILIES, Family
from benchmarks.delay.parts import AUTO, NONE, PARTS
from benchmarks.delay.ratios import length_to_target, steps_ratio
from benchmarks.delay.runs import Outcomes, Run
from benchmarks.delay.tables import outcomes_table, worth_rows
from hpc_lpm.planning.pricing import make_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def outcomes(stages: int, corrections: str, curves: dict[int, dict[float, float]]) -> pd.DataFrame:
    """Made-up outcomes of gpt-adamw: by seed, by length."""
    return pd.DataFrame(
        {
            "family": "gpt-adamw",
            "stages": stages,
            "micro_batches": 4,
            "corrections": corrections,
            "rate": 1e-3,
            "length": length,
            "seed": seed,
            "outcome": outcome,
        }
        for seed, curve in curves.items()
        for length, outcome in curve.items()
    )


ONE = outcomes(1, NONE, {0: {1.0: 2.0}, 1: {1.0: 2.0}})


def test_between_two_lengths_the_outcome_is_linear_in_the_logarithm_of_the_length() -> None:
    half_way = length_to_target([1.0, 4.0], [2.2, 1.8], 2.0, lower_is_better=True)
    assert half_way == pytest.approx(2.0)
    rising = length_to_target([1.0, 1.21], [90.0, 92.0], 91.0, lower_is_better=False)
    assert rising == pytest.approx(1.1)


def test_a_run_that_is_as_good_at_once_counts_with_the_shortest_length() -> None:
    assert length_to_target([1.0, 1.5], [1.9, 1.7], 2.0, lower_is_better=True) == 1.0


def test_a_target_that_no_length_reaches_is_infinitely_far() -> None:
    assert length_to_target([1.0, 1.5], [2.5, 2.1], 2.0, lower_is_better=True) == math.inf


def test_the_ratio_is_the_mean_over_seeds_and_says_how_many_reached_the_target() -> None:
    reached = outcomes(8, AUTO, {0: {1.0: 2.2, 4.0: 1.8}, 1: {1.0: 2.0, 4.0: 1.8}})
    ratio = steps_ratio(reached, ONE, lower_is_better=True)
    assert ratio.mean == pytest.approx((2.0 + 1.0) / 2)
    assert (ratio.low, ratio.high) == pytest.approx((1.0, 2.0))
    assert str(ratio) == "1.50 (1.00-2.00)"
    late = outcomes(8, NONE, {0: {1.0: 2.2, 1.5: 1.8}, 1: {1.0: 2.6, 1.5: 2.4}})
    assert str(steps_ratio(late, ONE, lower_is_better=True)) == "1 of 2 within 1.5"


def test_an_outcome_within_the_margin_counts_as_reached() -> None:
    missing = outcomes(8, NONE, {0: {1.0: 2.4}, 1: {1.0: 2.3}})
    kinds = {"lower_is_better": True}
    assert str(steps_ratio(missing, ONE, **kinds)) == "0 of 2 within 1"
    assert steps_ratio(missing, ONE, **kinds, margin=0.5).mean == 1.0
    accuracies = {"lower_is_better": False, "margin": 0.5}
    assert steps_ratio(outcomes(8, NONE, {0: {1.0: 1.6}}), ONE, **accuracies).mean == 1.0
    assert steps_ratio(outcomes(8, NONE, {0: {1.0: 1.4}}), ONE, **accuracies).mean == math.inf


def test_where_there_is_a_margin_the_mean_over_seeds_has_to_reach_the_outcome() -> None:
    # One device ends at 2; of these the second misses 1.5 alone, and they do not together.
    noisy = outcomes(8, NONE, {0: {1.0: 2.2}, 1: {1.0: 1.4}, 2: {1.0: 2.0}})
    ratio = steps_ratio(noisy, ONE, lower_is_better=False, margin=0.5)
    assert (ratio.mean, ratio.reached, ratio.seeds) == (1.0, 3, 3)
    assert ratio.high == math.inf  # three of the second one would
    short = outcomes(8, NONE, {0: {1.0: 1.3, 2.0: 1.7}, 1: {1.0: 1.3, 2.0: 1.5}})
    half_way = 2 ** ((1.5 - 1.3) / (1.6 - 1.3))
    ratio = steps_ratio(short, ONE, lower_is_better=False, margin=0.5)
    assert ratio.mean == pytest.approx(half_way)


def test_a_target_that_was_tried_for_longer_in_vain_is_told_to_the_planner() -> None:
    late = outcomes(8, NONE, {seed: {1.0: 2.9, 1.5: 2.6} for seed in (0, 1)})
    (row,) = worth_rows(pd.concat([ONE, late]), "a test").to_dict("records")
    assert (row["steps_ratio"], row["low"], row["high"]) == (math.inf, 1.5, math.inf)


def test_a_ratio_of_one_seed_has_no_interval() -> None:
    alone = outcomes(8, NONE, {0: {1.0: 2.2, 4.0: 1.8}})
    assert str(steps_ratio(alone, ONE, lower_is_better=True)) == "2.00"


def test_only_what_every_seed_has_reached_is_told_to_the_planner() -> None:
    reached = outcomes(8, AUTO, {0: {1.0: 2.2, 4.0: 1.8}, 1: {1.0: 2.0, 4.0: 1.8}})
    late = outcomes(8, NONE, {0: {1.0: 2.6}, 1: {1.0: 2.6}})
    rows = pd.concat([ONE, reached, late])
    worth = worth_rows(rows, "a test")
    assert worth[["model_family", "optimizer", "recipe", "seeds"]].to_numpy().tolist() == [
        ["gpt", "adamw", "auto", 2]
    ]
    assert worth["first_stage_lag"].tolist() == [7 / 4]
    table = outcomes_table(rows)
    assert "| gpt-adamw | loss | 8 | 4 | recipe none | 0.001 |" in table
    assert "0 of 2 within 1" in table
    assert "means that none of 3 seeds reached the outcome in runs of up to 1.5 times" in table
    assert "means that none" not in outcomes_table(pd.concat([ONE, reached]))


def test_every_part_names_runs_of_known_families_that_are_its_own() -> None:
    for part in PARTS.values():
        runs = list(part())
        assert runs
        assert {run.family for run in runs} <= set(FAMILIES)
        assert len({run.key for run in runs}) == len(set(runs))


def test_emulated_stages_keep_the_proportions_of_a_plan_at_a_mean_of_their_own() -> None:
    layers = [(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)]
    profile = Profile(
        model="by hand",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name=f"layer{number}",
                forward_seconds=forward,
                backward_seconds=backward,
                output_bytes=1,
                parameter_bytes=1,
                activation_bytes=1,
            )
            for number, (forward, backward) in enumerate(layers)
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    )
    plan = make_plan(profile, "", 2)
    assert plan.cuts == (0, 2, 3)
    even = [(MEAN_STAGE_SECONDS / 3, 2 * MEAN_STAGE_SECONDS / 3)] * 2
    assert planned_passes(profile, plan) == [pytest.approx(passes) for passes in even]
    assert equal_passes(2) == [pytest.approx(passes) for passes in even]
    apart = make_plan(profile, "", 3)
    assert [sum(passes) for passes in planned_passes(profile, apart)] == pytest.approx(
        [MEAN_STAGE_SECONDS * share for share in (0.5, 1.0, 1.5)]
    )


def test_what_has_an_outcome_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Family(
        "tiny",
        "mlp,width=8,layers=3",
        "digits,size=8",
        32,
        4,
        {"name": "adamw"},
        (1e-2,),
        1e-2,
        1e-2,
    )
    monkeypatch.setitem(FAMILIES, "tiny", tiny)
    runs = [Run("tiny", stages, 4, NONE, 1e-2, 1.0, 0) for stages in (1, 2)]
    kept = tmp_path / "outcomes.jsonl"
    Outcomes(kept).add(runs, tmp_path)
    lines = kept.read_text().splitlines()
    assert len(lines) == 2
    Outcomes(kept).add(runs, tmp_path)
    assert kept.read_text().splitlines() == lines
    table = Outcomes(kept).table(runs)
    assert table["stages"].tolist() == [1, 2]
    assert table["outcome"].between(0.5, 5.0).all()
