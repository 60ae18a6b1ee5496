import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from campaign_folders import STARTED, campaign, write_folder

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Attempt, AttemptRecord, Launch
from hpc_lpm.campaign.report import write_report
from hpc_lpm.campaign.workflow import RULES
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.cluster.slurm import SlurmJob
from tests.crates import PROFILES, STRICTEST, complaints_about

register([])

CONTINUED = "resnet20-digits-fbp-lpm-k2-seed0-repeat0"

Entities = dict[str, dict[str, Any]]


def continue_a_trial_in_slurm(folder: CampaignFolder) -> None:
    """Make one trial one that was interrupted, lost its node, and was continued to its end."""
    starts = [STARTED + timedelta(minutes=number) for number in range(3)]
    attempts = (
        Attempt(started=starts[0], ended=starts[1], exit_code=75, job_id="11", nodes=("n1", "n2")),
        Attempt(started=starts[1], job_id="12", nodes=("n1", "n2")),
        Attempt(started=starts[2], ended=starts[2], exit_code=0, job_id="13", nodes=("n2", "n3")),
    )
    AttemptRecord(attempts=attempts).write(folder.run(CONTINUED) / "attempts.json")
    path = folder.run(CONTINUED) / "launch.json"
    job = SlurmJob(job_id="13", node_list="n[2-3]", partition="compute")
    changes = {"slurm": job, "nodes": ("n2", "n3"), "attempts": attempts}
    Launch.read(path).model_copy(update=changes).write(path)


def finish(root: Path) -> CampaignFolder:
    folder = write_folder(root, campaign())
    folder.workflow.write_text(Path(RULES).read_text())
    continue_a_trial_in_slurm(folder)
    write_report(root)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> CampaignFolder:
    return finish(tmp_path_factory.mktemp("a campaign") / "synthetic")


def entities_of(folder: CampaignFolder) -> Entities:
    graph = json.loads(folder.crate.read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    assert len(entities) == len(graph)
    return entities


def values(entities: Entities, references: object) -> dict[str, object]:
    listed = references if isinstance(references, list) else [references]
    found = [entities[reference["@id"]] for reference in listed]
    return {entity["name"]: entity["value"] for entity in found if "value" in entity}


def test_the_validator_accepts_a_finished_campaign(finished: CampaignFolder) -> None:
    assert complaints_about(finished.root, *PROFILES) == {profile: [] for profile in PROFILES}


def test_the_validator_accepts_what_is_there_of_an_unfinished_campaign(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    for pattern in ("plans/*", "runs/*repeat1/*", "runs/*/trace.json"):
        for path in folder.root.glob(pattern):
            path.unlink()
    folder.environment.unlink()
    write_report(folder.root)
    # Without the Snakefile it is no crate of a workflow, but still one of processes.
    found = complaints_about(folder.root, "ro-crate-1.1", "process-run-crate")
    assert found == {"ro-crate-1.1": [], "process-run-crate": []}


def lose_a_file(root: Path, entities: Entities) -> None:
    (root / "summary.csv").unlink()


def forget_what_trained(root: Path, entities: Entities) -> None:
    del entities[f"#train/{CONTINUED}"]["instrument"]


def use_a_term_of_nobody(root: Path, entities: Entities) -> None:
    entities["./"]["unheard_of"] = 1


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lose_a_file, "summary.csv"),
        (forget_what_trained, "instrument"),
        (use_a_term_of_nobody, "unheard_of"),
    ],
)
def test_the_validator_refuses_a_broken_crate(
    tmp_path: Path, damage: Callable[[Path, Entities], None], complaint: str
) -> None:
    folder = finish(tmp_path / "c")
    document = json.loads(folder.crate.read_text())
    damage(folder.root, {entity["@id"]: entity for entity in document["@graph"]})
    folder.crate.write_text(json.dumps(document))
    (found,) = complaints_about(folder.root, STRICTEST)[STRICTEST]
    assert complaint in found


def test_files_of_the_crate_are_relative_and_exist(finished: CampaignFolder) -> None:
    entities = entities_of(finished)
    kinds = {name: entity["@type"] for name, entity in entities.items()}
    files = [name for name, kind in kinds.items() if "File" in kind]
    assert len(files) > 40
    for name in files:
        assert urlparse(name).scheme == ""
        assert (finished.root / name).is_file()
        assert entities[name]["contentSize"] == str((finished.root / name).stat().st_size)
    assert str(finished.root) not in finished.crate.read_text()


def test_every_run_is_an_action_with_what_went_in_and_came_out(finished: CampaignFolder) -> None:
    entities = entities_of(finished)
    run = entities["#train/resnet20-digits-fbp-lpm-k2-seed0-repeat1"]
    inputs = {reference["@id"] for reference in run["object"]}
    assert "provenance/campaign.json" in inputs
    assert "plans/resnet20-digits-k2-lpm-fbp.json" in inputs
    assert "profiles/resnet20-digits-microbatch16.json" in inputs
    assert values(entities, run["object"]) == {"ranks": 2, "seed": 0, "repeat": 1}
    outcomes = values(entities, run["result"])
    assert outcomes["exit code"] == 0
    assert outcomes["SHA-256 of the weights"].endswith("repeat1-3")
    assert run["actionStatus"].endswith("CompletedActionStatus")
    assert run["startTime"] < run["endTime"]
    assert run["instrument"] == {"@id": "#hpc-lpm"}


def test_every_attempt_is_an_action_of_its_own(finished: CampaignFolder) -> None:
    entities = entities_of(finished)
    runs = [entities[f"#train/{CONTINUED}{end}"] for end in ("/attempt1", "/attempt2", "")]
    jobs = [values(entities, run["environment"])["SLURM_JOB_ID"] for run in runs]
    assert jobs == ["11", "12", "13"]
    assert [run["actionStatus"].rpartition("/")[2] for run in runs] == [
        "FailedActionStatus",
        "FailedActionStatus",
        "CompletedActionStatus",
    ]
    assert runs[0]["error"] == "exit code 75"
    assert "endTime" not in runs[1]
    assert runs[2]["location"] == "n2, n3"


def test_the_expectations_join_the_crate_once_they_were_judged(tmp_path: Path) -> None:
    folder = finish(tmp_path / "c")
    assert "expectations.json" not in entities_of(folder)
    out = folder.root / "expectations.json"
    assert run_guarded(app, ["campaign", "expectations", str(folder.root), "--out", str(out)]) == 0
    assert "expectations.json" in entities_of(folder)
