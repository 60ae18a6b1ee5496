"""Campaigns that race a strategy which is not installed here."""

import json
import sys
from pathlib import Path

import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.absent import absent_contestants
from hpc_lpm.campaign.comparison.compare import compare_folders
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Attempt, begin_attempt
from hpc_lpm.campaign.results import load_results
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.workflow import load_call
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.errors import InputError

register([])

NOTE = "no C++ compiler was found\ninstall one (Debian: g++)\n"
FILE = """
name: small
models: [mlp]
datasets: [digits]
strategies: [horovod, sequential]
epochs: 1
repeats: 2
"""


@pytest.fixture
def without_horovod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Strategy, "available", lambda strategy: strategy.package is None)


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let set-up have noted why Horovod is missing."""
    prefix = tmp_path / "environment"
    prefix.mkdir()
    (prefix / "horovod-missing.txt").write_text(NOTE)
    monkeypatch.setattr(sys, "prefix", str(prefix))


def unfinished(root: Path, **changes: object) -> CampaignFolder:
    """Write a campaign whose Horovod trials were never started."""
    folder = write_folder(root, campaign(**changes))
    for run in root.glob("runs/*horovod*"):
        for file in run.iterdir():
            file.unlink()
    return folder


@pytest.mark.usefixtures("without_horovod")
def test_its_trials_are_no_steps_and_the_others_are_numbered_without_it(tmp_path: Path) -> None:
    steps = Steps(campaign(), CampaignFolder(tmp_path))
    trials = list(steps.trials.values())
    assert {trial.strategy for trial in trials} == {"sequential", "deepspeed-1f1b", "fbp"}
    assert [trial.number for trial in trials] == list(range(1, len(trials) + 1))
    assert set(steps.runs) == set(steps.trials)
    assert [absent.contestant for absent in steps.absent] == ["horovod"]


def test_nothing_is_left_out_where_all_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Strategy, "available", lambda strategy: True)
    steps = Steps(campaign(), CampaignFolder(tmp_path))
    assert steps.absent == []
    assert "horovod" in {trial.strategy for trial in steps.trials.values()}


@pytest.mark.usefixtures("without_horovod", "noted")
def test_the_reason_is_that_of_the_set_up() -> None:
    (absent,) = absent_contestants(campaign())
    assert absent.sentence() == (
        "horovod is left out, its package horovod is not installed (no C++ compiler was found): "
        "install one (Debian: g++) and run `make setup`"
    )


@pytest.mark.usefixtures("without_horovod")
def test_validate_says_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(FILE)
    assert run_guarded(app, ["validate", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "horovod is left out, its package horovod is not installed" in said
    assert "run `make setup`" in said
    assert "2 trials" in said
    assert run_guarded(app, ["validate", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [trial["strategy"] for trial in document["trials"]] == 2 * ["sequential"]
    assert [entry["contestant"] for entry in document["absent"]] == ["horovod"]


@pytest.mark.usefixtures("without_horovod")
def test_a_campaign_of_nothing_that_is_installed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(FILE.replace(", sequential", ""))
    assert run_guarded(app, ["validate", str(path)]) == 2
    assert "races nothing that is installed" in capsys.readouterr().err
    chosen = campaign(strategies=["horovod"]).model_dump(mode="json", exclude_none=True)
    with pytest.raises(InputError, match="make setup"):
        load_call(chosen, [path], path, tmp_path)


@pytest.mark.usefixtures("without_horovod", "noted")
def test_the_report_names_it_and_counts_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unfinished(tmp_path / "c")
    assert run_guarded(app, ["report", str(folder.root)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "horovod is left out, its package horovod is not installed (no C++ compiler" in said
    assert "missing:" not in said
    page = " ".join(folder.report.read_text().split())
    assert "<strong>horovod is missing</strong>" in page
    assert "install one (Debian: g++) and run `make setup`" in page
    assert "6 of 6 trials" in page
    assert "trials are missing" not in page
    assert run_guarded(app, ["report", str(folder.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [entry["contestant"] for entry in document["absent"]] == ["horovod"]
    assert document["missing"] == []


@pytest.mark.usefixtures("without_horovod")
def test_runs_of_it_that_were_made_elsewhere_are_shown(tmp_path: Path) -> None:
    results = load_results(write_folder(tmp_path / "c", campaign()).root)
    assert results.absent == []
    assert "horovod" in {run.trial.strategy for run in results.runs}


@pytest.mark.usefixtures("without_horovod")
def test_trials_of_it_that_failed_elsewhere_are_missing(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "c")
    failed = next(folder.root.glob("runs/*horovod*"))
    begin_attempt(failed / "attempts.json", Attempt(started="2026-01-02T03:04:05Z"))
    results = load_results(folder.root)
    assert results.absent == []
    assert {missing.trial.strategy for missing in results.missing} == {"horovod"}


def expecting(strategy: str, relative_to: str) -> dict[str, object]:
    return {
        "metric": "samples_per_second",
        "strategy": strategy,
        "relative_to": relative_to,
        "at_least": 0.5,
    }


@pytest.mark.usefixtures("without_horovod")
@pytest.mark.parametrize(
    ("strategy", "relative_to", "code"),
    [("fbp", "deepspeed-1f1b", 0), ("fbp", "horovod", 1), ("horovod", "sequential", 1)],
)
def test_what_is_expected_of_it_does_not_hold(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
    relative_to: str,
    code: int,
) -> None:
    folder = unfinished(tmp_path / "c", expect=[expecting(strategy, relative_to)])
    out = tmp_path / "expectations.json"
    arguments = ["campaign", "expectations", str(folder.root), "--out", str(out)]
    assert run_guarded(app, arguments) == code
    said = " ".join(capsys.readouterr().out.split())
    assert ("cannot be judged: horovod is not installed" in said) == (code == 1)


@pytest.mark.usefixtures("without_horovod")
def test_a_comparison_says_why_its_trials_are_missing(tmp_path: Path) -> None:
    a, b = write_folder(tmp_path / "a", campaign()), unfinished(tmp_path / "b")
    comparison = compare_folders(a.root, b.root)
    assert comparison.missing_in_a == []
    assert len(comparison.missing_in_b) == 2
    assert all("not installed" in absence.reason for absence in comparison.missing_in_b)


def test_a_pair_that_is_missing_for_another_reason_does_not_blame_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Strategy, "available", lambda strategy: True)
    chosen = campaign(expect=[expecting("fbp", "horovod")])
    folder = unfinished(tmp_path / "c", expect=[expecting("fbp", "horovod")])
    (verdict,) = judge(chosen, load_results(folder.root).summary)
    assert "no pair of runs is there" in verdict.sentence()
