"""Whether Slurm is here, its controller answers, and its partitions and nodes are fit for jobs."""

import shlex
import sys
from dataclasses import dataclass

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.campaign.doctor.slurm_time import minutes_of
from hpc_lpm.campaign.resources import UNPROFILED_MINUTES
from hpc_lpm.programs import Answer, ask, installed

NAME = "slurm"

_SHOWN = 5


@dataclass(frozen=True)
class _Partition:
    """A partition as sinfo tells it; `nodes` are allocated/idle/other/all, the limit Slurm's."""

    name: str
    state: str
    nodes: str
    time_limit: str

    @property
    def is_default(self) -> bool:
        return self.name.endswith("*")


def check_slurm(situation: Situation) -> Finding:
    """Judge the answers of sinfo."""
    if not installed("sinfo"):
        return Finding(NAME, "ok", "not on this machine")
    answer = ask(["sinfo", "--noheader", "--format=%P %a %F %l"])
    if not answer.done:
        return Finding(
            NAME,
            "warning",
            f"sinfo is installed, but {answer.complaint()}",
            "start slurmctld and munge, or ask the site; until then run with snakemake --cores",
        )
    partitions = _partitions(answer)
    if not any(partition.state == "up" for partition in partitions):
        return Finding(
            NAME,
            "warning",
            f"the controller answers, but of {len(partitions)} partitions none is up",
            "scontrol update partition=NAME state=up, or ask the site",
        )
    shown = ", ".join(
        f"{one.name} ({one.state}, nodes {one.nodes}, at most {one.time_limit})"
        for one in partitions
    )
    default = next((one for one in partitions if one.is_default), None)
    if default is None:
        return Finding(
            NAME,
            "warning",
            f"no default partition: {shown}",
            "set slurm_partition in slurm/config.v8+.yaml",
        )
    found = f"{shown}; nodes are allocated/idle/other/all"
    return (
        _judge_time_limit(default, found)
        or _judge_nodes(found)
        or Finding(NAME, "ok", f"the controller answers: {found}", _how_to_see_nodes(situation))
    )


def _partitions(answer: Answer) -> list[_Partition]:
    lines = (line.split() for line in answer.output.splitlines() if line.strip())
    return [_Partition(*words) for words in lines]


def _judge_time_limit(default: _Partition, found: str) -> Finding | None:
    limit, usual = minutes_of(default.time_limit), UNPROFILED_MINUTES
    if limit is None or limit >= usual:
        return None
    return Finding(
        NAME,
        "warning",
        f"{found}; steps of a campaign ask for {usual} minutes before its profiles are there, more "
        f"than {default.name} gives",
        f"set resources.runtime_minutes to {limit:.0f} at most in the campaign file, or "
        "slurm_partition in slurm/config.v8+.yaml",
    )


def _judge_nodes(found: str) -> Finding | None:
    """Warn of the nodes that take no jobs because they are down, drained or failing."""
    answer = ask(["sinfo", "--noheader", "--list-reasons", "--format=%N|%T|%E"])
    entries = [line.split("|", maxsplit=2) for line in answer.output.splitlines()]
    out = [(node, state, why) for node, state, why in (e for e in entries if len(e) == 3)]
    if not answer.done or not out:
        return None
    listed = ", ".join(f"{node} {state} ({why})" for node, state, why in out[:_SHOWN])
    more = f" and {len(out) - _SHOWN} more" if len(out) > _SHOWN else ""
    return Finding(
        NAME,
        "warning",
        f"{found}; nodes that take no jobs: {listed}{more}",
        "mend the reason, then `scontrol update nodename=NAME state=resume`, or ask the site; jobs "
        "that fit on the others run",
    )


def _how_to_see_nodes(situation: Situation) -> str:
    if situation.allocation is not None or not installed("sbatch"):
        return ""
    doctor = shlex.quote(f"{shlex.quote(sys.executable)} -m hpc_lpm doctor")
    return (
        "this is outside a job, so the ranks ran on this machine; to look at nodes: "
        f"sbatch --nodes=2 --ntasks=2 --wait --output=doctor.txt --wrap={doctor}; cat doctor.txt"
    )
