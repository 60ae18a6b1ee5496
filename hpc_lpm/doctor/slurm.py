"""Slurm: its controller, partitions and nodes, its accounting, and its ways of starting MPI."""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpc_lpm.campaign.resources import UNPROFILED_MINUTES
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.doctor.starting import outside_of_ranks
from hpc_lpm.programs import Answer, ask, installed

_SLURM = "slurm"

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
        return Finding(_SLURM, "ok", "not on this machine")
    answer = ask(["sinfo", "--noheader", "--format=%P %a %F %l"])
    if not answer.done:
        return Finding(
            _SLURM,
            "warning",
            f"sinfo is installed, but {answer.complaint()}",
            "start slurmctld and munge, or ask the site; until then run with snakemake --cores",
        )
    partitions = _partitions(answer)
    if not any(partition.state == "up" for partition in partitions):
        return Finding(
            _SLURM,
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
            _SLURM,
            "warning",
            f"no default partition: {shown}",
            "set slurm_partition in slurm/config.v8+.yaml",
        )
    found = f"{shown}; nodes are allocated/idle/other/all"
    return (
        _judge_time_limit(default, found)
        or _judge_nodes(found)
        or Finding(_SLURM, "ok", f"the controller answers: {found}", _how_to_see_nodes(situation))
    )


def _partitions(answer: Answer) -> list[_Partition]:
    lines = (line.split() for line in answer.output.splitlines() if line.strip())
    return [_Partition(*words) for words in lines]


def _judge_time_limit(default: _Partition, found: str) -> Finding | None:
    limit, usual = minutes_of(default.time_limit), UNPROFILED_MINUTES
    if limit is None or limit >= usual:
        return None
    return Finding(
        _SLURM,
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
        _SLURM,
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


_ACCOUNTING = "accounting"

PROFILE = Path("slurm/config.v8+.yaml")


def check_accounting(situation: Situation) -> Finding:
    """Judge the answers of sacct and sacctmgr, and the Slurm profile in the current folder.

    sacct may be installed where nothing is accounted and then answers errors; who asks it for the
    state of jobs waits for ever.
    """
    if not installed("sacct"):
        return Finding(_ACCOUNTING, "ok", "not on this machine")
    settings = _profile_settings(situation.folder / PROFILE)
    answer = ask(["sacct", "--noheader", "--allocations", "--starttime=now", "--format=jobid"])
    if not answer.done:
        return _without_accounting(answer.complaint(), settings)
    accounts = _accounts()
    if accounts and settings.get("slurm-no-account"):
        return Finding(
            _ACCOUNTING,
            "ok",
            f"answers; accounts: {', '.join(accounts)}",
            f"where the site charges jobs to an account, set slurm_account in {PROFILE} and "
            "remove slurm-no-account",
        )
    return Finding(_ACCOUNTING, "ok", "answers")


def _without_accounting(complaint: str, settings: dict[str, Any]) -> Finding:
    found = f"none: sacct says: {complaint}"
    if settings.get("slurm-status-command") == "squeue" and settings.get("slurm-no-account"):
        return Finding(_ACCOUNTING, "ok", f"{found}; {PROFILE} asks squeue and for no account")
    return Finding(
        _ACCOUNTING,
        "warning",
        f"{found}; jobs would seem to run for ever",
        f"set slurm-status-command: squeue and slurm-no-account: true in {PROFILE}",
    )


def _accounts() -> list[str]:
    answer = ask(
        ["sacctmgr", "--noheader", "--parsable2", "show", "user", "withassoc", "format=account"]
    )
    return sorted(set(filter(None, answer.output.split()))) if answer.done else []


def _profile_settings(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return document if isinstance(document, dict) else {}


_MPI_PLUGIN = "mpi plugin"

_TRIAL_SECONDS = 60.0
_SIZE = "from mpi4py import MPI; print('ranks', MPI.COMM_WORLD.size)"
_KEEP_MPIRUN = "keep `mpi: mpirun` as the campaign's launcher"


def check_mpi_plugin(situation: Situation) -> Finding:
    """Judge what srun offers by what the MPI at hand needs and, in a job, by trying it."""
    if not installed("srun"):
        return Finding(_MPI_PLUGIN, "ok", "no srun on this machine; mpirun starts the ranks")
    offers = ask(["srun", "--mpi=list"])
    if not offers.done:
        return Finding(
            _MPI_PLUGIN,
            "warning",
            f"srun is installed, but {offers.complaint()}",
            f"mend what the check of slurm says; until then {_KEEP_MPIRUN}",
        )
    offered, default = _offered_types(offers), _default_type()
    library = situation.jobs[0].library if situation.jobs else "Open MPI"
    needed = "pmix" if "Open MPI" in library else "pmi2"
    found = f"MpiDefault={default or 'unknown'}; srun offers {', '.join(offered) or 'nothing'}"
    if default and default not in {"none", *offered}:
        return Finding(
            _MPI_PLUGIN,
            "warning",
            f"{found}: the default is not among them, so that every srun fails",
            "export SLURM_MPI_TYPE=none, or have MpiDefault=none set in slurm.conf; "
            f"{_KEEP_MPIRUN}",
        )
    if needed not in offered:
        return Finding(
            _MPI_PLUGIN,
            "ok",
            f"{found}, but not {needed}, which this MPI needs: srun cannot start our ranks",
            f"{_KEEP_MPIRUN}, which works without; or ask the site for Slurm's {needed} plugin",
        )
    option = "" if default == needed else f" --mpi={needed}"
    if situation.allocation is None:
        return Finding(
            _MPI_PLUGIN,
            "ok",
            f"{found}: srun{option} may start our ranks, which only a job can try",
        )
    return _try_step(needed, found, option)


def _try_step(needed: str, found: str, option: str) -> Finding:
    """Start two ranks by srun in the job at hand and see if they know each other."""
    command = ["srun", "--overlap", "--overcommit", "--nodes=1", "--ntasks=2", f"--mpi={needed}"]
    environment = outside_of_ranks(os.environ)
    program = [sys.executable, "-c", _SIZE]
    answer = ask([*command, *program], environment=environment, seconds=_TRIAL_SECONDS)
    if answer.done and answer.output.count("ranks 2") == 2:
        return Finding(_MPI_PLUGIN, "ok", f"{found}: srun{option} starts our ranks (tried)")
    why = "its ranks do not know each other" if answer.done else answer.complaint()
    return Finding(
        _MPI_PLUGIN,
        "warning",
        f"{found}, but a step with --mpi={needed} fails: {why}",
        f"{_KEEP_MPIRUN}; for srun have the library of Slurm's {needed} plugin (libpmix) "
        "installed on all nodes",
    )


def _offered_types(answer: Answer) -> list[str]:
    """Return the names in the list of srun, which old versions write as errors.

    The names stand on lines of their own, or behind `srun: `; versions of PMIx follow a colon.
    """
    names = []
    for line in (answer.output + "\n" + answer.errors).splitlines():
        word = line.removeprefix("srun:").strip()
        if re.fullmatch(r"[a-z][a-z0-9_]*", word):
            names.append(word)
    return sorted(set(names))


def _default_type() -> str:
    answer = ask(["scontrol", "show", "config"])
    found = re.search(r"^MpiDefault\s*=\s*(\S+)", answer.output, re.MULTILINE)
    return found.group(1) if found else ""


_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")


def minutes_of(text: str) -> float | None:
    """Return the minutes of `[days-]hours:minutes:seconds` or `minutes:seconds`, None if unlimited.

    Slurm drops the fields before the first that counts; behind days the first is hours.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:  # `infinite`, `n/a`
        return None
    fields = [int(field) for field in found["fields"].split(":")]
    if found["days"]:
        hours, minutes, seconds = (*fields, 0, 0)[:3]
        return 60.0 * (24 * int(found["days"]) + hours) + minutes + seconds / 60.0
    if len(fields) == 1:
        return float(fields[0])
    hours, minutes, seconds = (0, 0, *fields)[-3:]
    return 60.0 * hours + minutes + seconds / 60.0
