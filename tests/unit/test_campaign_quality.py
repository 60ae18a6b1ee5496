"""Where there is no accuracy, another metric of the evaluations stands for it everywhere."""

from pathlib import Path

import pandas as pd
import pytest
from campaign_folders import STEPS_AN_EPOCH, campaign, write_folder

from hpc_lpm.campaign.comparison.compare import compare_folders
from hpc_lpm.campaign.config import campaign_schema
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.quality import metric_named, quality_of
from hpc_lpm.campaign.report import write_report
from hpc_lpm.campaign.results import load_results
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.engine.evaluation import Evaluation
from hpc_lpm.engine.result import RunResult
from hpc_lpm.errors import InputError

ERRORS = {"sequential": 2.0, "fbp": 2.5}
EXPECTED = {"metric": "validation_loss", "strategy": "fbp", "relative_to": "sequential"}


def evaluations(error: float) -> list[Evaluation]:
    """Of two epochs of four steps, with one evaluation inside the second."""
    found = []
    for step, epoch, parts in [(4, 1, "vt"), (6, 2, "v"), (8, 2, "vt")]:
        for part in parts:
            value = error * (10 - step)
            found.append(
                Evaluation(
                    *(step, epoch, {"v": "validation", "t": "test"}[part], value**2),
                    {"rmse": value, "mae": value / 2, "share_accuracy": 0.5},
                    after_epoch=step % STEPS_AN_EPOCH == 0,
                )
            )
    return found


def write_regression(root: Path, factor: float = 1.0, **more: object) -> Path:
    chosen = campaign(strategies=list(ERRORS), epochs=2, seeds=list(range(6)), repeats=1, **more)
    folder = write_folder(root, chosen)
    for path in root.glob("runs/*/result.json"):
        result = RunResult.read(path)
        error = factor * ERRORS[result.strategy] + 0.01 * result.seed
        changes = {
            "test_accuracy": [],
            "lower_is_better": ["rmse", "mae"],
            "evaluations": evaluations(error),
        }
        result.model_copy(update=changes).write(path)
    return folder.root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("regression") / "c"
    write_regression(root, expect=[{**EXPECTED, "at_least": 1.1}])
    write_report(root)
    return root


def test_every_loss_and_metric_of_evaluations_has_a_column(root: Path) -> None:
    summary = pd.read_csv(root / "summary.csv")
    first = summary[summary["strategy"] == "fbp"].iloc[0]
    # 2.5 (10 - 8) after the last step
    assert first["test_rmse"] == first["validation_rmse"] == pytest.approx(5.0)
    assert first["test_loss"] == first["validation_loss"] == pytest.approx(25.0)
    assert first["test_mae"] == pytest.approx(2.5)
    assert first["validation_share_accuracy"] == 0.5
    assert pd.isna(first["test_accuracy"])
    statistics = pd.read_csv(root / "statistics.csv")
    of_fbp = statistics[(statistics["strategy"] == "fbp") & (statistics["metric"] == "test_rmse")]
    assert of_fbp["comparison"].fillna("").tolist() == ["", "difference"]
    assert of_fbp["median"].tolist() == pytest.approx([5.05, 1.0])


def test_the_report_shows_the_first_metric_instead_of_an_accuracy(root: Path) -> None:
    page = (root / "report.html").read_text()
    assert "The final test rmse of fbp minus that of sequential is 1.0000" in page
    for heading in ("<h3>Test rmse</h3>", "<th>test rmse</th>", "<th>against sequential</th>"):
        assert heading in page.replace('<th class="number">', "<th>"), heading
    assert "Accuracy" not in page
    table = pd.read_csv(root / "figures" / "test_rmse-resnet20-digits.csv")
    one = table[table["trial"].str.contains("sequential") & table["trial"].str.contains("seed0")]
    assert one["epoch"].tolist() == [1.0, 2.0]
    assert one["test_rmse"].tolist() == pytest.approx([12.0, 4.0])
    # Eight steps of 64 samples at 200 samples per second.
    assert one["training_seconds"].tolist() == pytest.approx([1.28, 2.56])


def test_a_metric_of_the_validation_part_can_be_asked_for(tmp_path: Path, root: Path) -> None:
    results = load_results(root)
    (verdict,) = judge(results.campaign, results.summary)
    assert verdict.ratio is not None
    assert verdict.ratio.median == pytest.approx((5.05 / 4.05) ** 2, rel=1e-3)
    asked = write_regression(tmp_path / "asked", metrics=["validation_share_accuracy"])
    write_report(asked)
    assert "validation share accuracy" in (asked / "report.html").read_text()
    schema = campaign_schema()["$defs"]["Expectation"]["properties"]["metric"]["anyOf"]
    assert {"pattern": r"^(test|validation)_(\w+)$"} in schema
    with pytest.raises(InputError, match="test_NAME and validation_NAME"):
        campaign(expect=[{**EXPECTED, "metric": "tset_loss", "at_least": 1}])


def test_a_metric_to_be_patient_with_is_checked_before_anything_is_trained() -> None:
    check_names(campaign(patience=2, patience_metric="validation_accuracy"), "c.yaml")
    with pytest.raises(InputError, match=r"c.yaml: .*'acuracy' is no metric of this run") as found:
        check_names(campaign(patience=2, patience_metric="acuracy"), "c.yaml")
    assert "--patience" not in str(found.value)


def test_campaigns_are_compared_by_differences_of_the_same_seed(root: Path, tmp_path: Path) -> None:
    worse = write_regression(tmp_path / "worse", factor=1.5)
    comparison = compare_folders(root, worse)
    changes = {
        entry.who.label: entry.change
        for entry in comparison.contestants
        if entry.change.metric == "test_rmse"
    }
    assert changes["sequential"].value == pytest.approx(2.0)
    assert changes["sequential"].verdict == "worse"
    assert changes["fbp"].document()["difference"] == pytest.approx(2.5)
    assert changes["fbp"].document()["ratio"] is None
    assert changes["fbp"].text() == "+2.5"
    (change,) = [c for c in comparison.trials[0].changes if c.metric == "test_rmse"]
    assert (change.value, change.note) == (pytest.approx(2.0), "one value a run")


def test_the_quality_is_the_accuracy_where_there_is_one(root: Path, tmp_path: Path) -> None:
    runs = [run.result for run in load_results(root).runs]
    assert quality_of(runs).name == "test_rmse"
    assert quality_of(runs).better == "lower"
    plain = write_folder(tmp_path / "plain", campaign())
    of_classes = load_results(plain.root)
    assert quality_of([run.result for run in of_classes.runs]).name == "test_accuracy"
    assert "test_loss" not in of_classes.summary
    only_loss = [
        run.model_copy(update={"evaluations": [Evaluation(1, 1, "test", 0.5)]}) for run in runs
    ]
    assert quality_of(only_loss).name == "test_loss"
    assert metric_named("validation_mae").better == "lower"
    assert metric_named("test_accuracy").compared_as == "points"
