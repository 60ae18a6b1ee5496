from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from campaign_folders import campaign, write_folder
from test_statistics import summary

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.results import load_results
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.errors import InputError

PAIR = ["fbp", "sequential"]


def expecting(at_least: float, **changes: object) -> Campaign:
    expectation = {
        "metric": "samples_per_second",
        "strategy": "fbp",
        "relative_to": "sequential",
        "at_least": at_least,
    }
    chosen = {"models": ["m"], "datasets": ["d"], "strategies": PAIR, "expect": [expectation]}
    return campaign(**(chosen | changes))


@pytest.mark.parametrize(("at_least", "held"), [(1.55, True), (1.56, False)])
def test_an_expectation_holds_up_to_the_median_of_the_paired_ratios(
    at_least: float, held: bool
) -> None:
    table: pd.DataFrame = summary(
        {("fbp", "lpm"): [300.0, 330.0, 310.0], ("sequential", ""): [200.0, 200.0, 200.0]}
    )
    assert [verdict.held for verdict in judge(expecting(at_least), table)] == [held]


def test_an_expectation_without_runs_does_not_hold() -> None:
    (verdict,) = judge(expecting(0.1), summary({("fbp", "lpm"): [300.0]}))
    assert not verdict.held
    assert "no pair of runs" in verdict.sentence()


def test_a_race_of_which_nothing_ran_is_judged_too(tmp_path: Path) -> None:
    chosen = expecting(0.1, models=["resnet20", "vgg11"], datasets=["digits"])
    folder = write_folder(tmp_path / "c", chosen)
    for path in folder.root.glob("runs/vgg11-*/result.json"):
        path.unlink()
    first, second = judge(chosen, load_results(folder.root).summary)
    assert (first.held, second.held) == (True, False)
    assert second.where == "vgg11, digits, lpm"


def test_a_campaign_without_any_run_holds_nothing(tmp_path: Path) -> None:
    chosen = expecting(0.1, models=["resnet20"], datasets=["digits"])
    folder = write_folder(tmp_path / "c", chosen)
    for path in folder.root.glob("runs/*/result.json"):
        path.unlink()
    assert [verdict.held for verdict in judge(chosen, load_results(folder.root).summary)] == [False]


def test_of_missing_trials_the_other_pairs_are_judged(tmp_path: Path) -> None:
    chosen = expecting(0.1, models=["resnet20"], datasets=["digits"], repeats=3)
    folder = write_folder(tmp_path / "c", chosen)
    (folder.run("resnet20-digits-fbp-lpm-k2-seed0-repeat1") / "result.json").unlink()
    (verdict,) = judge(chosen, load_results(folder.root).summary)
    assert verdict.held
    assert "n = 2" in verdict.sentence()


def expectation(metric: str, strategy: str, relative_to: str) -> dict[str, object]:
    return {"metric": metric, "strategy": strategy, "relative_to": relative_to, "at_least": 0.5}


NEVER_JUDGED = [
    (expectation("samples_per_second", "fbp", "fbp"), "fbp is compared with itself"),
    (expectation("bytes_sent", "fbp", "sequential"), "sequential sends nothing"),
    (expectation("bytes_sent", "sequential", "fbp"), "sequential sends nothing"),
    (expectation("bytes_sent", "fbp", "limit"), "limit sends nothing"),
    (expectation("bytes_sent", "fbp", "alone"), "alone sends nothing"),
]


@pytest.mark.parametrize(("expected", "why"), NEVER_JUDGED)
def test_an_expectation_that_can_never_be_judged_is_refused_or_says_why(
    expected: dict[str, object], why: str
) -> None:
    strategies = ["fbp", "sequential", "limit", {"sequential": {"name": "alone"}}]
    chosen = campaign(strategies=strategies, expect=[expected])
    with pytest.raises(InputError, match=f"can never be judged, because {why}"):
        check_names(chosen, "c.yaml")
    # A campaign that has run is still reported.
    verdicts = judge(chosen, summary({("fbp", "lpm"): [300.0]}))
    assert verdicts
    assert all(f"cannot be judged: {why}" in verdict.sentence() for verdict in verdicts)


def test_accuracy_is_not_expected_where_there_is_none(tmp_path: Path) -> None:
    expected = expectation("test_accuracy", "fbp", "sequential")
    chosen = campaign(models=["mlp"], strategies=PAIR, expect=[expected])
    check_names(chosen, "c.yaml")
    images = {"x": np.zeros((8, 1, 8, 8), np.float32), "y": np.linspace(0.1, 0.8, 8)}
    np.savez(tmp_path / "distances.npz", **images)
    distances = f"npz:{tmp_path}/distances.npz"
    both = ["digits", distances]
    other = campaign(models=["mlp"], datasets=both, strategies=PAIR, expect=[expected])
    with pytest.raises(InputError) as refused:
        check_names(other, "c.yaml")
    assert f"because mlp on {distances} has no accuracy" in str(refused.value)


def test_strategies_that_send_may_be_compared_by_what_they_send() -> None:
    expected = expectation("bytes_sent", "fbp", "deepspeed-1f1b")
    check_names(
        campaign(models=["mlp"], strategies=["fbp", "deepspeed-1f1b"], expect=[expected]), "c"
    )


@pytest.mark.parametrize(
    ("column", "who", "value", "why"),
    [
        ("idle_share", "sequential", 0.0, "idle_share of sequential is 0 in every pair of runs"),
        ("idle_share", "fbp", float("nan"), "the runs of fbp have no idle_share"),
        ("seed", "fbp", 7, "no pair of runs is there with the same seed and repeat"),
        ("contestant", "sequential", "x", "no pair of runs is there, since sequential has no"),
    ],
)
def test_a_verdict_says_why_it_cannot_be_given(
    column: str, who: str, value: object, why: str, tmp_path: Path
) -> None:
    expected = expectation("idle_share", "fbp", "sequential")
    chosen = campaign(strategies=PAIR, expect=[expected], repeats=1)
    table = load_results(write_folder(tmp_path / "c", chosen).root).summary
    table[column] = [
        value if name == who else old
        for name, old in zip(table["contestant"], table[column], strict=True)
    ]
    (verdict,) = judge(chosen, table)
    assert not verdict.held
    assert f"cannot be judged: {why}" in verdict.sentence()
