"""What Slurm tells about the job that this process runs in and about the cluster around it."""

import os
import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from hpc_lpm.programs import ask

SETTINGS = (
    "ClusterName",
    "SLURM_VERSION",
    "SelectType",
    "SelectTypeParameters",
    "ProctrackType",
    "TaskPlugin",
    "TaskPluginParam",
    "MpiDefault",
    "LaunchParameters",
    "SchedulerType",
    "SchedulerParameters",
    "PriorityType",
    "PreemptMode",
    "AccountingStorageType",
    "JobAcctGatherType",
    "JobRequeue",
    "KillWait",
    "OverTimeLimit",
    "SwitchType",
    "TopologyPlugin",
)
"""The settings that decide how ranks are placed, started and stopped."""

_VARIABLES = {
    "Partition": "SLURM_JOB_PARTITION",
    "NodeList": "SLURM_JOB_NODELIST",
    "NumNodes": "SLURM_JOB_NUM_NODES",
    "NumTasks": "SLURM_NTASKS",
    "Restarts": "SLURM_RESTART_COUNT",
}
"""Where a job's own environment has these values if the controller does not answer."""


class SlurmJob(BaseModel):
    """A job; a field is None if neither the controller nor the environment tells it.

    `restarts` counts how often Slurm has queued it again; `time_limit` is in Slurm's notation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str
    cluster: str | None = None
    partition: str | None = None
    node_list: str | None = None
    node_count: int | None = None
    tasks: int | None = None
    restarts: int | None = None
    time_limit: str | None = None


def describe_job(environment: Mapping[str, str] = os.environ) -> SlurmJob | None:
    """Return the job that this process is part of, or None outside of any.

    The controller is asked first, because Snakemake removes most variables of a job from the
    environment of its steps, though not the job's id.
    """
    job_id = environment.get("SLURM_JOB_ID")
    if not job_id:
        return None
    answer = ask(["scontrol", "show", "job", job_id, "--oneliner"])
    values = {key: environment[name] for key, name in _VARIABLES.items() if name in environment}
    if answer.done:
        values |= job_values(answer.output)
    return SlurmJob(
        job_id=job_id,
        cluster=environment.get("SLURM_CLUSTER_NAME"),
        partition=values.get("Partition"),
        node_list=values.get("NodeList"),
        node_count=_count(values.get("NumNodes")),
        tasks=_count(values.get("NumTasks")),
        restarts=_count(values.get("Restarts")),
        time_limit=values.get("TimeLimit"),
    )


def job_values(line: str) -> dict[str, str]:
    """Return the `Key=value` pairs of `scontrol show job --oneliner` that have a value."""
    pairs = re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S+)", line)
    return {key: value for key, value in pairs if value != "(null)"}


def slurm_settings() -> dict[str, str] | None:
    """Return the `SETTINGS` of this cluster, or None if no controller answers."""
    answer = ask(["scontrol", "show", "config"])
    return settings_in(answer.output) if answer.done else None


def settings_in(output: str) -> dict[str, str]:
    """Return the `SETTINGS` in what `scontrol show config` writes."""
    found = dict(re.findall(r"^(\w+) *= (.*?) *$", output, re.MULTILINE))
    return {key: found[key] for key in SETTINGS if key in found}


def _count(text: str | None) -> int | None:
    # Until the job has its nodes, this is a range such as 1-1.
    first = (text or "").partition("-")[0]
    return int(first) if first.isdigit() else None
