"""Ratios pair runs of one call of Snakemake, and what is not paired is said."""

from datetime import timedelta
from pathlib import Path

import pytest
from campaign_folders import STARTED, campaign, write_folder

from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.expectations import judge
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Attempt, Launch
from hpc_lpm.campaign.report import write_report
from hpc_lpm.campaign.results import CampaignResults, load_results
from hpc_lpm.campaign.statistics import paired_difference, paired_ratio, unpaired
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.engine.result import RunResult
from hpc_lpm.errors import InputError

EXPECTED = {"metric": "samples_per_second", "strategy": "fbp", "relative_to": "sequential"}


def called(folder: CampaignFolder, calls: dict[str, list[str]], interruptions: int = 0) -> None:
    """Record in which calls the trials were trained whose names hold a word."""
    for word, of_trial in calls.items():
        for run in folder.root.glob(f"runs/*{word}*"):
            attempts = tuple(
                Attempt(started=STARTED + timedelta(minutes=at), exit_code=0, call=call)
                for at, call in enumerate(of_trial)
            )
            launch = Launch.read(run / "launch.json")
            launch.model_copy(update={"attempts": attempts}).write(run / "launch.json")
            result = RunResult.read(run / "result.json")
            result.model_copy(update={"interruptions": interruptions}).write(run / "result.json")


def results_of(tmp_path: Path, calls: dict[str, list[str]], **changes: object) -> CampaignResults:
    chosen = campaign(**{"strategies": ["sequential", "fbp"], "repeats": 3, **changes})
    folder = write_folder(tmp_path / "c", chosen)
    called(folder, calls)
    return load_results(folder.root)


def entrants(results: CampaignResults) -> tuple[Entrant, Entrant]:
    who = dict.fromkeys(Entrant.of(trial) for trial in results.trials)
    sequential, fbp = who
    return fbp, sequential


def test_runs_of_other_calls_are_no_pairs_of_speeds_but_of_accuracies(tmp_path: Path) -> None:
    results = results_of(tmp_path, {"sequential": ["a"], "fbp": ["a"], "fbp*repeat2": ["b"]})
    fbp, sequential = entrants(results)
    ratio = paired_ratio(results.summary, fbp, sequential, "samples_per_second")
    assert ratio is not None
    assert ratio.n == 2
    assert unpaired(results.summary, fbp, sequential, "samples_per_second") == 1
    difference = paired_difference(results.summary, fbp, sequential, "test_accuracy")
    assert difference is not None
    assert difference.n == 3


def test_a_campaign_of_an_earlier_release_is_paired_as_ever(tmp_path: Path) -> None:
    results = results_of(tmp_path, {})
    assert unpaired(results.summary, *entrants(results), "samples_per_second") == 0
    assert set(results.summary["calls"]) == {""}


@pytest.mark.parametrize(("interruptions", "calls"), [(1, "a+b"), (0, "b")])
def test_a_run_that_went_on_in_another_call_belongs_to_both(
    tmp_path: Path, interruptions: int, calls: str
) -> None:
    folder = write_folder(tmp_path / "c", campaign(strategies=["fbp"], repeats=1))
    called(folder, {"fbp": ["a", "b", "b"]}, interruptions)
    (run,) = load_results(folder.root).runs
    assert run.calls == calls


def test_a_late_contestant_is_paired_with_what_ran_again_beside_it(tmp_path: Path) -> None:
    results = results_of(
        tmp_path,
        {"sequential": ["a"], "fbp": ["b"], "sequential*again1": ["b"]},
        strategies=[{"sequential": {"again": 1}}, "fbp"],
    )
    fbp, sequential = entrants(results)
    assert len(results.runs) == 9
    ratio = paired_ratio(results.summary, fbp, sequential, "samples_per_second")
    assert ratio is not None
    assert ratio.n == 3
    assert unpaired(results.summary, fbp, sequential, "samples_per_second") == 0


def test_a_contestant_that_runs_twice_in_one_call_is_paired_once(tmp_path: Path) -> None:
    results = results_of(
        tmp_path, {"repeat": ["a"]}, strategies=[{"sequential": {"again": 2}}, "fbp"]
    )
    ratio = paired_ratio(results.summary, *entrants(results), "samples_per_second")
    assert ratio is not None
    assert ratio.n == 3


def test_a_contestant_that_came_later_is_named(tmp_path: Path) -> None:
    results = results_of(
        tmp_path, {"sequential": ["a"], "fbp": ["b"]}, expect=[EXPECTED | {"at_least": 0.1}]
    )
    (verdict,) = judge(results.campaign, results.summary)
    assert not verdict.held
    assert "different calls of snakemake, set `again: 1`" in verdict.sentence()
    outcome = write_report(results.folder.root)
    assert any(
        "fbp is not paired with sequential on resnet20 and digits in 3" in note
        for note in outcome.notes
    )
    page = outcome.path.read_text()
    assert "fbp is not paired with sequential" in page
    assert "times the speed of" not in outcome.headline


@pytest.mark.parametrize("again", [-1, 1.5, True, "1"])
def test_again_is_a_number_of_runs(again: object) -> None:
    with pytest.raises(InputError, match="again of sequential"):
        check_names(campaign(strategies=[{"sequential": {"again": again}}]), "a file")


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(InputError, match="checkpoint_epochs 0"):
        check_names(campaign(keep=["weights"], checkpoint_epochs=0), "a file")
    with pytest.raises(InputError, match="limit trains no model"):
        check_names(campaign(keep=["weights"], strategies=["limit"]), "a file")
