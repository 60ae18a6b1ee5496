"""Metrics of the user's own, from the campaign file to every table, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.comparison.compare import compare_folders
from hpc_lpm.campaign.config import Campaign, campaign_schema
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.metrics import METRICS
from hpc_lpm.campaign.quality import metrics_with
from hpc_lpm.campaign.report import write_report
from hpc_lpm.campaign.results import load_results
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.errors import InputError

register([])

TOY = """
from hpc_lpm.campaign.metrics import Metric

cost = Metric(
    "device_seconds",
    "cost",
    "lower",
    unit="device-seconds",
    of_run=lambda result: result.ranks * result.training_seconds,
)
late = Metric("late", "late", "lower", of_run=lambda result: result.train_loss[10**6])
words = Metric("words", "words", of_run=lambda result: "many")
taken = Metric("seed", "seed", of_run=lambda result: 1.0)
no_column = Metric("no column", "x", of_run=lambda result: 1.0)
again = Metric("device_seconds", "cost", of_run=lambda result: 1.0)
number = 3
"""


@pytest.fixture(autouse=True)
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_metrics.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)


def chosen(*metrics: str) -> Campaign:
    return campaign(metrics=list(metrics))


def test_a_metric_from_a_file_of_the_users_reaches_every_table(tmp_path: Path) -> None:
    # Two ranks at 1.6 times the speed of one cost 2 / 1.6 = 1.25 times as much.
    folders = [
        write_folder(tmp_path / "a", chosen("toy_metrics:cost")),
        write_folder(tmp_path / "b", campaign(), speed_factor=2.0),
    ]
    for folder in folders:
        write_report(folder.root)
    root = folders[0].root
    summary = pd.read_csv(root / "summary.csv")
    assert (summary["device_seconds"] == summary["ranks"] * summary["training_seconds"]).all()
    assert "device_seconds" not in pd.read_csv(folders[1].root / "summary.csv")
    statistics = pd.read_csv(root / "statistics.csv", keep_default_na=False)
    rows = statistics[statistics["metric"] == "device_seconds"]
    assert set(rows["comparison"]) == {"", "ratio"}
    fbp = rows[(rows["contestant"] == "fbp") & (rows["relative_to"] == "sequential")].iloc[0]
    assert fbp["median"] == pytest.approx(1.25)
    assert "<th>cost, device-seconds</th>" in (root / "report.html").read_text()
    # The other campaign does not name it, but its runs have it as well.
    for pair, ratio in ((folders, 0.5), (folders[::-1], 2.0)):
        changes = compare_folders(pair[0].root, pair[1].root).contestants
        found = {e.who.label: e.change for e in changes if e.change.metric == "device_seconds"}
        assert found["fbp"].ratio == pytest.approx(ratio)


def test_expectations_judge_a_metric_of_the_users(tmp_path: Path) -> None:
    for factor, held in ((0.79, True), (0.81, False)):
        expectation = {
            "metric": "toy_metrics:cost",
            "strategy": "sequential",
            "relative_to": "fbp",
            "at_least": factor,
        }
        one = campaign(expect=[expectation])
        folder = write_folder(tmp_path / str(factor), one)
        (verdict,) = judge(one, load_results(folder.root).summary)
        assert verdict.held is held
        assert "toy_metrics:cost of sequential" in verdict.sentence()


def test_the_campaign_command_judges_it_too(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", chosen("toy_metrics:cost"))
    held = tmp_path / "expectations.json"
    assert run_guarded(app, ["campaign", "summary", str(folder.root)]) == 0
    assert run_guarded(app, ["campaign", "expectations", str(folder.root), "--out", str(held)]) == 0
    assert "device_seconds" in pd.read_parquet(folder.root / "summary.parquet")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("sample_per_second", "did you mean 'samples_per_second'?"),
        ("toy_metrics:costs", "did you mean 'cost'?"),
        ("no_such_module:cost", "cannot be imported"),
        ("toy_metrics:number", "accepted is an instance or a subclass of"),
        ("toy_metrics:taken", "is taken by a column of summary.csv"),
        ("toy_metrics:no_column", "is no name for a column"),
    ],
)
@pytest.mark.parametrize("key", ["metrics", "expect"])
def test_validate_refuses_what_is_no_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, metric: str, said: str
) -> None:
    document = json.loads(campaign().model_dump_json())
    if key == "metrics":
        document["metrics"] = [metric]
    else:
        document["expect"] = [
            {"metric": metric, "strategy": "fbp", "relative_to": "sequential", "at_least": 1}
        ]
    path = tmp_path / "campaign.yaml"
    path.write_text(json.dumps(document))
    assert run_guarded(app, ["validate", str(path)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_two_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="give one of them another name"):
        metrics_with(["toy_metrics:cost", "toy_metrics:again"])
    named_twice = metrics_with(["toy_metrics:cost", "toy_metrics:cost"])
    assert [metric.name for metric in named_twice].count("device_seconds") == 1


@pytest.mark.parametrize(("metric", "said"), [("late", "IndexError"), ("words", "'many'")])
def test_a_metric_that_cannot_be_computed_is_one_sentence_with_the_trial(
    tmp_path: Path, metric: str, said: str
) -> None:
    folder = write_folder(tmp_path / "c", chosen(f"toy_metrics:{metric}"))
    with pytest.raises(InputError, match=rf"{said}.*correct its function") as error:
        load_results(folder.root)
    assert "trial resnet20-digits-sequential-k1-seed0-repeat0" in str(error.value)


def test_the_schema_lists_the_metrics() -> None:
    (names, *_) = campaign_schema()["$defs"]["Expectation"]["properties"]["metric"]["anyOf"]
    assert names["enum"] == METRICS.names()
    assert "samples_per_second" in names["enum"]
