import os
from pathlib import Path

import pytest

from hpc_lpm.cluster.slurm import describe_job, job_values, settings_in, slurm_settings
from hpc_lpm.host_names import host_names

SHOW_JOB = (
    "JobId=7 JobName=a name UserId=u(0) MCS_label=N/A Account=(null) JobState=RUNNING Restarts=1 "
    "RunTime=00:00:00 TimeLimit=01:00:00 Scheduler=Main Partition=compute ReqNodeList=(null) "
    "NodeList=n[1-2] BatchHost=n1 NumNodes=2 NumCPUs=2 NumTasks=2 CPUs/Task=1 TRES=cpu=2,node=2"
)
SHOW_CONFIG = """Configuration data as of 2026-01-02T03:04:05
ClusterName             = testbed
KillWait                = 30 sec
MpiDefault              = pmix
SelectTypeParameters    = CR_CORE_MEMORY
SlurmUser               = slurm(64030)

Slurmctld(primary) at head is UP
"""


def on_path(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for scontrol before everything else."""
    program = folder / "scontrol"
    program.write_text(f"#!/bin/bash\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_outside_a_job_there_is_none() -> None:
    assert describe_job({}) is None


def test_the_controller_tells_what_the_environment_of_a_step_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(tmp_path, f'[ "$*" = "show job 7 --oneliner" ] && echo "{SHOW_JOB}"', monkeypatch)
    job = describe_job({"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "testbed"})
    assert job
    assert (job.job_id, job.cluster, job.partition) == ("7", "testbed", "compute")
    assert (job.node_list, job.node_count, job.tasks) == ("n[1-2]", 2, 2)
    assert (job.restarts, job.time_limit) == (1, "01:00:00")


def test_without_an_answer_the_environment_is_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(tmp_path, "exit 1", monkeypatch)
    job = describe_job({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n3", "SLURM_NTASKS": "2"})
    assert job
    assert (job.node_list, job.tasks, job.partition, job.restarts) == ("n3", 2, None, None)
    assert host_names("n[1-2]") == ["n[1-2]"]
    assert slurm_settings() is None


def test_values_that_slurm_does_not_set_are_left_out() -> None:
    values = job_values(SHOW_JOB)
    assert values["CPUs/Task"] == "1"
    assert "Account" not in values
    assert "ReqNodeList" not in values


def test_the_settings_are_those_that_decide_how_ranks_run() -> None:
    assert settings_in(SHOW_CONFIG) == {
        "ClusterName": "testbed",
        "SelectTypeParameters": "CR_CORE_MEMORY",
        "MpiDefault": "pmix",
        "KillWait": "30 sec",
    }
