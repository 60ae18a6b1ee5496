"""The settings of a Slurm cluster that decide how ranks are placed, started and stopped."""

import re

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


def slurm_settings() -> dict[str, str] | None:
    """Return the `SETTINGS` of the cluster at hand, None if no controller answers."""
    answer = ask(["scontrol", "show", "config"])
    return settings_in(answer.output) if answer.done else None


def settings_in(output: str) -> dict[str, str]:
    """Return the `SETTINGS` in what `scontrol show config` writes."""
    found = dict(re.findall(r"^(\w+) *= (.*?) *$", output, re.MULTILINE))
    return {key: found[key] for key in SETTINGS if key in found}
