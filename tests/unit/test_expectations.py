from pathlib import Path

import pandas as pd
import pytest
from campaign_folders import campaign, write_folder
from test_statistics import summary

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.results import load_results

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
