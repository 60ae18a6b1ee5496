"""Contestants that one process plays: how they are started, and what a report leaves out."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identities import identities_of
from hpc_lpm.campaign.report import write_report
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.validation import check_names
from hpc_lpm.errors import InputError

PLAYED = {"fbp": {"name": "played", "in_one_process": True}}
TARGET = {"metric": "train_loss", "value": 0.5}


def steps(*strategies: Any, **changes: Any) -> Steps:
    chosen = campaign(strategies=list(strategies), repeats=1, **changes)
    check_names(chosen, "some.yaml")
    return Steps(chosen, CampaignFolder(Path("results/x")))


def test_one_process_is_started_for_all_stages_of_the_plan() -> None:
    made = steps("sequential", PLAYED, stages=4)
    alone, played = made.trials.values()
    assert (alone.ranks, alone.processes, alone.played) == (1, 1, False)
    assert (played.ranks, played.processes, played.played) == (4, 1, True)
    assert made.runs[played.name].ranks == 1
    (plan,) = made.plans.values()
    assert "--stages 4" in " ".join(plan.arguments)
    (profile,) = made.profiles.values()
    assert profile.ranks == 1


def test_it_has_the_cuts_of_the_devices_that_run_beside_it() -> None:
    made = steps("fbp", PLAYED)
    (profile,) = made.profiles.values()
    assert profile.ranks == 2
    assert {made.profile_path(trial) for trial in made.trials.values()} == {Path(profile.output)}


def test_a_run_of_one_process_does_not_pass_for_one_of_many() -> None:
    digests = []
    for overrides in ({}, {"in_one_process": True}):
        made = steps({"fbp": {"name": "one", **overrides}})
        found = identities_of(made, Fingerprints())
        digests += [identity.digest for identity in found.runs.values()]
    assert digests[0] != digests[1]


def test_its_memory_is_that_of_all_stages(tmp_path: Path) -> None:
    chosen = campaign(strategies=["fbp", PLAYED], repeats=1)
    folder = write_folder(tmp_path / "c", chosen)
    made = Steps(chosen, folder)
    devices, played = (made.request(name).rank_megabytes for name in made.trials)
    assert played >= devices


def test_its_speed_is_not_shown_as_that_of_devices(tmp_path: Path) -> None:
    chosen = campaign(strategies=["sequential", "fbp", PLAYED], target=TARGET)
    folder = write_folder(tmp_path / "c", chosen)
    (race,) = write_report(folder.root).races
    summary = pd.read_csv(folder.root / "summary.csv")
    played = summary[summary["contestant"] == "played"]
    assert played[["samples_per_second", "idle_share", "seconds_to_target"]].isna().all().all()
    # A loss of 2 / n after n steps is 0.5 after 4.
    assert played["steps_to_target"].tolist() == [4.0, 4.0]
    assert played["test_accuracy"].notna().all()
    assert race.target is not None
    rows = {row[0]: row for row in race.target.rows}
    assert [bool(cell) for cell in rows["played"][1:6]] == [False, True, False, True, False]
    assert any("One process played all stages of played" in note for note in race.target.notes)
    throughput = pd.read_csv(folder.figures / "throughput-resnet20-digits.csv")
    assert set(throughput["contestant"]) == {"sequential", "fbp"}
    accuracy = pd.read_csv(folder.figures / "accuracy-resnet20-digits.csv")
    assert accuracy[accuracy["contestant"] == "played"]["training_seconds"].isna().all()
    curves = pd.read_csv(folder.figures / "target-resnet20-digits.csv")
    assert curves[curves["contestant"] == "played"]["seconds"].isna().all()
    speeds = {row[0]: row[2] for row in race.rows}
    assert (speeds["played"], bool(speeds["fbp"])) == ("", True)


def test_a_campaign_without_any_device_has_a_report(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign(strategies=[PLAYED], target=TARGET))
    outcome = write_report(folder.root)
    (race,) = outcome.races
    assert (race.throughput, race.memory, race.stage_activity) == (None, None, None)
    assert outcome.headline == (
        "played reaches a training loss of 0.5 with resnet20 on digits after 4 steps."
    )


@pytest.mark.parametrize("metric", ["samples_per_second", "seconds_to_target"])
def test_what_only_devices_have_is_never_expected_of_it(metric: str) -> None:
    expectation = {"metric": metric, "strategy": "played", "relative_to": "sequential"}
    chosen = campaign(
        strategies=["sequential", PLAYED], target=TARGET, expect=[expectation | {"at_least": 1}]
    )
    with pytest.raises(InputError, match="one process plays all devices of played"):
        check_names(chosen, "some.yaml")
