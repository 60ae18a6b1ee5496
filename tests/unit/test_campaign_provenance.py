import json
from datetime import timedelta
from pathlib import Path

import pytest
from campaign_folders import STARTED, campaign, write_folder

from hpc_lpm.campaign.folder import Hashes
from hpc_lpm.campaign.launch_records import Attempt, AttemptRecord, Launch
from hpc_lpm.campaign.provenance import CampaignProvenance, gather_provenance
from hpc_lpm.campaign.report import write_report
from hpc_lpm.campaign.results import load_results
from hpc_lpm.cluster.machine import describe_machine
from hpc_lpm.cluster.slurm import SlurmJob
from hpc_lpm.errors import InputError

TRIAL = "resnet20-digits-fbp-lpm-k2-seed0-repeat0"


def test_one_document_tells_what_ran_from_what_and_what_came_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    write_report(folder.root)
    found = CampaignProvenance.read(folder.provenance)
    assert found.seeds == (0,)
    assert found.environment == json.loads(folder.environment.read_text())
    assert found.environment["campaign_sha256"] == found.campaign_sha256
    assert found.started == STARTED + timedelta(minutes=1)
    assert found.ended == STARTED + timedelta(minutes=8, seconds=30)
    assert len(found.trials) == 8
    assert {name: trial.weights_sha256 for name, trial in found.trials.items()} == {
        name: f"{name}-3" for name in found.trials
    }
    assert all(len(trial.attempts) == 1 for trial in found.trials.values())


def test_profiles_of_settings_that_are_gone_are_none_of_the_campaign(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    Hashes(profiles={"some": "0" * 10}).write(folder.hashes_file)
    launch = Launch.read(folder.run(TRIAL) / "launch.json")
    for name, job, days in (("some-0000000000", "7", 0), ("some-1111111111", "6", 9)):
        changes = {"started": STARTED - timedelta(days=days), "slurm": SlurmJob(job_id=job)}
        launch.model_copy(update=changes).write(folder.root / "profiles" / f"{name}.launch.json")
    found = gather_provenance(load_results(folder.root))
    assert found.steps.keys() == {"profiles/some-0000000000"}
    assert (found.started, found.job_ids) == (STARTED, ("7",))


def test_jobs_and_nodes_of_every_launch_are_gathered(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    profile = folder.profile("resnet20", "digits", 16)
    machines = [describe_machine().model_copy(update={"host": host}) for host in ("n2", "n1")]
    launch = Launch.read(folder.run(TRIAL) / "launch.json")
    for path, job, machine in (
        (profile.with_suffix(".launch.json"), "7", machines[0]),
        (folder.run(TRIAL) / "launch.json", "9", machines[1]),
    ):
        changes = {"slurm": SlurmJob(job_id=job), "machines": (machine,), "nodes": (machine.host,)}
        launch.model_copy(update=changes).write(path)
    interrupted = Attempt(started=STARTED, ended=STARTED, exit_code=75, job_id="8", nodes=("n3",))
    last = Attempt(started=STARTED, ended=STARTED, exit_code=0, job_id="9", nodes=("n1",))
    record = AttemptRecord(attempts=(interrupted, last))
    record.write(folder.run(TRIAL) / "attempts.json")
    found = gather_provenance(load_results(folder.root))
    assert found.job_ids == ("7", "9", "8")
    assert [machine.host for machine in found.machines] == ["n1", "n2"]
    assert found.trials[TRIAL].attempts == (interrupted, last)
    assert found.steps[f"profiles/{profile.stem}"].nodes == ("n2",)
    write_report(folder.root)
    page = folder.report.read_text()
    assert "7, 9, 8" in page
    assert f"{TRIAL} (2 attempts)" in page


def test_a_trial_that_failed_keeps_its_attempts(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    for name in ("result.json", "launch.json"):  # Snakemake deletes what a failed rule declares
        (folder.run(TRIAL) / name).unlink()
    failed = Attempt(started=STARTED, ended=STARTED, exit_code=1)
    AttemptRecord(attempts=(failed,)).write(folder.run(TRIAL) / "attempts.json")
    trial = gather_provenance(load_results(folder.root)).trials[TRIAL]
    assert trial.weights_sha256 is None
    assert trial.attempts == (failed,)


def test_a_document_of_another_release_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c", campaign())
    write_report(folder.root)
    document = json.loads(folder.provenance.read_text())
    folder.provenance.write_text(json.dumps(document | {"schema_version": 99}))
    with pytest.raises(InputError, match="provenance"):
        CampaignProvenance.read(folder.provenance)
