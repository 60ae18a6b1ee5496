"""Whether Slurm is here and its controller answers."""

from hpc_lpm.campaign.doctor.command import ask, installed
from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "slurm"


def check_slurm(situation: Situation) -> Finding:
    """Judge the answer of sinfo."""
    if not installed("sinfo"):
        return Finding(NAME, "ok", "not on this machine")
    # Partition (the default one starred), up or not, its nodes as allocated/idle/other/all.
    answer = ask(["sinfo", "--noheader", "--format=%P %a %F"])
    if not answer.done:
        return Finding(
            NAME,
            "warning",
            f"sinfo is installed, but {answer.complaint()}",
            "start slurmctld and munge, or ask the site; until then run with snakemake --cores",
        )
    partitions = [line.split() for line in answer.output.splitlines() if line.strip()]
    if not any(state == "up" for _, state, _ in partitions):
        return Finding(
            NAME,
            "warning",
            f"of {len(partitions)} partitions none is up",
            "scontrol update partition=NAME state=up, or ask the site",
        )
    shown = ", ".join(f"{name} ({state}, nodes {nodes})" for name, state, nodes in partitions)
    if not any(name.endswith("*") for name, _, _ in partitions):
        return Finding(
            NAME,
            "warning",
            f"no default partition: {shown}",
            "set slurm_partition in slurm/config.v8+.yaml",
        )
    return Finding(NAME, "ok", f"{shown}; nodes are allocated/idle/other/all")
