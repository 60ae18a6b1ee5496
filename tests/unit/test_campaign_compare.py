"""What two campaigns share, what their weights say about it, and what is missing."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from campaign_folders import campaign, write_folder

from hpc_lpm.campaign.comparison.compare import Comparison, compare_folders
from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Attempt, AttemptRecord
from hpc_lpm.engine.result import RunResult

FBP = "resnet20-digits-fbp-lpm-k2-seed0-repeat0"
HOROVOD = "resnet20-digits-horovod-k2-seed0-repeat0"
Pair = tuple[CampaignFolder, CampaignFolder]


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Pair]:
    """Write two campaigns; those of B differ from A in the keys given."""

    def write(**changes: Any) -> Pair:
        common: dict[str, Any] = {"strategies": ["fbp", "horovod"], "repeats": 1}
        chosen: list[Campaign] = [campaign(**common), campaign(**(common | changes))]
        a, b = (write_folder(tmp_path / name, own) for name, own in zip("ab", chosen, strict=True))
        # Written a moment later, B may have met another state of the working tree.
        b.environment.write_text(a.environment.read_text())
        return a, b

    return write


def change_result(folder: CampaignFolder, trial: str, **fields: Any) -> None:
    path = folder.run(trial) / "result.json"
    RunResult.read(path).model_copy(update=fields).write(path)


def change_environment(folder: CampaignFolder, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(folder.environment.read_text())
    change(document)
    folder.environment.write_text(json.dumps(document))


def compared(folders: Pair) -> Comparison:
    return compare_folders(folders[0].root, folders[1].root)


def different(comparison: Comparison, part: str) -> list[str]:
    differences = comparison.comparability.parts()[part]
    assert differences is not None
    return [difference.text() for difference in differences]


def test_the_same_campaign_twice_ends_in_the_very_same_weights(pair: Callable[..., Pair]) -> None:
    comparison = compared(pair())
    assert comparison.headline() == (
        "Same configuration, same seeds: 2 of 2 common trials ended in the very same weights"
    )
    assert comparison.comparability.complete
    assert comparison.findings() == []


def test_what_no_run_sees_is_no_difference_of_the_configuration(pair: Callable[..., Pair]) -> None:
    expectation = {
        "metric": "samples_per_second",
        "strategy": "fbp",
        "relative_to": "horovod",
        "at_least": 0.5,
    }
    comparison = compared(
        pair(name="other", expect=[expectation], resources={"runtime_minutes": 1})
    )
    assert comparison.comparability.configuration == []


def test_settings_that_differ_are_named(pair: Callable[..., Pair]) -> None:
    comparison = compared(pair(batch_size=128, optimizer={"lr": 0.2}))
    assert different(comparison, "configuration") == [
        "batch_size: 64 in A, 128 in B",
        "optimizer.lr: 0.1 in A, 0.2 in B",
    ]
    assert comparison.headline().startswith("Same configuration but for batch_size, optimizer.lr:")


def test_machine_software_and_source_that_differ_are_named(pair: Callable[..., Pair]) -> None:
    folders = pair()

    def other_machine(document: dict[str, Any]) -> None:
        document["cores"] += 2
        document["processor"]["Flags"] = "fpu"
        document["packages"]["torch"] = "0"
        document["git"] = {"revision": "r", "dirty": True, "diff_sha256": "d"}

    change_environment(folders[0], lambda document: document["processor"].update(Flags="fpu x"))
    change_environment(folders[1], other_machine)
    comparison = compared(folders)
    cores, flag = different(comparison, "machine")
    assert cores.startswith("cores: ")
    assert flag == "processor flag x: yes in A, none in B"
    (package,) = different(comparison, "software")
    assert package.startswith("torch: ")
    assert different(comparison, "source revision")[0].endswith("r in B")


def test_what_was_not_recorded_is_not_said_to_be_the_same(pair: Callable[..., Pair]) -> None:
    folders = pair()
    change_result(folders[1], FBP, weights_sha256="other")
    folders[0].environment.unlink()
    comparison = compared(folders)
    assert comparison.comparability.machine is None
    assert not comparison.comparability.complete
    assert comparison.findings() == []


def test_a_source_outside_git_is_not_known_to_be_the_same(pair: Callable[..., Pair]) -> None:
    folders = pair()
    nowhere = {"revision": None, "dirty": None, "diff_sha256": None}
    for folder in folders:
        change_environment(folder, lambda document: document.update(git=nowhere))
    assert compared(folders).comparability.source is None


def test_changes_that_git_did_not_tell_of_are_not_known_to_be_the_same(
    pair: Callable[..., Pair],
) -> None:
    folders = pair()
    untold = {"revision": "r", "dirty": None, "diff_sha256": None}
    for folder in folders:
        change_environment(folder, lambda document: document.update(git=untold))
    assert compared(folders).comparability.source is None
    clean = {"revision": "r", "dirty": False, "diff_sha256": None}
    change_environment(folders[1], lambda document: document.update(git=clean))
    named = different(compared(folders), "source revision")
    assert named == ["uncommitted changes: not known in A, none in B"]


def test_revisions_of_the_folders_of_installed_toolkits_are_compared(
    pair: Callable[..., Pair],
) -> None:
    folders = pair()
    nowhere = {"revision": None, "dirty": None, "diff_sha256": None}
    for folder, revision in zip(folders, "rs", strict=True):
        here = {"revision": revision, "dirty": False, "diff_sha256": None}
        change_environment(
            folder, lambda document, here=here: document.update(git=nowhere, study=here)
        )
    named = different(compared(folders), "source revision")
    assert named == ["revision of the study: r in A, s in B"]


def test_weights_that_differ_for_no_reason_are_a_finding(pair: Callable[..., Pair]) -> None:
    folders = pair()
    change_result(folders[1], FBP, weights_sha256="other")
    comparison = compared(folders)
    assert "1 of 2 common trials" in comparison.headline()
    (finding,) = comparison.findings()
    assert finding.startswith("Not reproducible: 1 of them")
    assert finding.endswith(FBP)


@pytest.mark.parametrize(
    ("fields", "findings"),
    [({"cuts": [0, 1, 4]}, ["1 of them had other cuts"]), ({"environment": {"cores": 9}}, [])],
)
def test_weights_that_differ_for_a_reason_are_none(
    pair: Callable[..., Pair], fields: dict[str, Any], findings: list[str]
) -> None:
    folders = pair()
    change_result(folders[1], FBP, weights_sha256="other", **fields)
    found = compared(folders).findings()
    assert len(found) == len(findings)
    assert all(text.startswith(start) for text, start in zip(found, findings, strict=True))


def test_campaigns_without_a_common_trial_have_no_weights_to_compare(
    pair: Callable[..., Pair],
) -> None:
    comparison = compared(pair(seeds=[5]))
    assert "no weights to compare" in comparison.headline()
    assert comparison.trials == []


def test_a_missing_trial_is_named_with_its_reason_on_the_side_where_it_is(
    pair: Callable[..., Pair],
) -> None:
    folders = pair(strategies=["fbp", "sequential"])
    run = folders[1].run(FBP)
    (run / "result.json").unlink()
    AttemptRecord(
        attempts=(
            Attempt(started=datetime.now(UTC)),
            Attempt(started=datetime.now(UTC), exit_code=1),
        )
    ).write(run / "attempts.json")
    (run / "train.log").write_text("epoch 1\nhpc-lpm: stage 0: it broke.\nmpirun said more\n")
    comparison = compared(folders)
    in_b = {absence.trial: absence.reason for absence in comparison.missing_in_b}
    assert set(in_b) == {FBP, HOROVOD}
    assert in_b[FBP] == (
        f"it ended with exit code 1 after 2 attempts (stage 0: it broke), see {run / 'train.log'}"
    )
    assert in_b[HOROVOD] == "not in the matrix of B"
    (in_a,) = comparison.missing_in_a
    assert (in_a.trial, in_a.reason) == (
        "resnet20-digits-sequential-k1-seed0-repeat0",
        "not in the matrix of A",
    )
    document = comparison.document()
    assert document["only_in_a"] == [FBP, HOROVOD]
    assert document["only_in_b"] == [in_a.trial]


def test_it_is_said_how_many_verdicts_chance_may_have_made(pair: Callable[..., Pair]) -> None:
    assert "Nothing is judged" in compared(pair()).chance_sentence()


def test_one_in_twenty_judged_changes_may_be_chance(tmp_path: Path) -> None:
    roots = [
        write_folder(tmp_path / name, campaign(strategies=["fbp"], repeats=6)).root
        for name in ("a", "b")
    ]
    # Throughput, memory and traffic have six runs; accuracy has one seed.
    assert compare_folders(*roots).chance_sentence() == (
        "3 changes are judged, each at 95 %: if nothing had changed, one in twenty, here about "
        "0.2, would be called better or worse by chance"
    )


KEYS = {
    "changes",
    "trials",
    "same_weights",
    "headline",
    "findings",
    "chance",
    "differences",
    "only_in_a",
    "only_in_b",
    "missing_in_a",
    "missing_in_b",
    "notes_a",
    "notes_b",
    "expectations",
    "held",
}


def test_the_json_holds_the_documented_keys(pair: Callable[..., Pair]) -> None:
    document: Any = compared(pair()).document()
    assert set(document) == KEYS
    documented = Path(__file__).parents[2].joinpath("docs", "reference", "files.md").read_text()
    for keys in (document, document["changes"][0], document["trials"][0], document["differences"]):
        assert [key for key in keys if f"`{key}`" not in documented] == []
    assert json.loads(json.dumps(document, allow_nan=False)) == document
