"""Whether Slurm's controller, its accounting and its way of starting MPI suit campaigns."""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpc_lpm.campaign.resources import UNPROFILED_MINUTES
from hpc_lpm.cluster.site import FILE as SITE
from hpc_lpm.cluster.site import Site
from hpc_lpm.cluster.slurm import slurm_settings
from hpc_lpm.doctor.probe_start import outside_of_ranks
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.errors import InputError
from hpc_lpm.files import read_text
from hpc_lpm.programs import Answer, ask, installed

_SLURM = "slurm"

_SHOWN = 5


@dataclass(frozen=True)
class _Partition:
    """A partition as sinfo lists it; `nodes` is `allocated/idle/other/total`."""

    name: str
    state: str
    nodes: str
    time_limit: str

    @property
    def is_default(self) -> bool:
        return self.name.endswith("*")

    def text(self) -> str:
        """Return e.g. `debug* (up, 1 of 2 nodes idle, time limit 1:00:00)`."""
        _, idle, _, total = self.nodes.split("/")
        unlimited = minutes_of(self.time_limit) is None
        limit = "no time limit" if unlimited else f"time limit {self.time_limit}"
        return f"{self.name} ({self.state}, {idle} of {total} nodes idle, {limit})"


def check_slurm(situation: Situation) -> Finding:
    """Check that the controller answers and that the partitions and nodes take jobs."""
    if not installed("sinfo"):
        return Finding(_SLURM, "ok", "not installed on this machine")
    answer = ask(["sinfo", "--noheader", "--format=%P %a %F %l"])
    if not answer.done:
        return Finding(
            _SLURM,
            "warning",
            f"sinfo is installed but fails: {answer.complaint()}",
            "start slurmctld and munge or ask your site's support; until then run campaigns "
            "without Slurm (snakemake --cores 2)",
        )
    partitions = _partitions(answer)
    if not any(partition.state == "up" for partition in partitions):
        return Finding(
            _SLURM,
            "warning",
            "the controller answers, but no partition is up",
            "run `scontrol update partition=NAME state=up` or ask your site's support",
        )
    shown = ", ".join(partition.text() for partition in partitions)
    named = _site(situation).partition
    chosen = [one for one in partitions if one.name.rstrip("*") == named] if named else []
    default = next((one for one in (*chosen, *partitions) if one in chosen or one.is_default), None)
    if default is None:
        return Finding(
            _SLURM,
            "warning",
            f"there is no default partition: {shown}",
            f"set partition in {SITE}",
        )
    found = f"the controller answers; partitions: {shown}"
    return (
        _judge_time_limit(default, found)
        or _judge_nodes(found)
        or Finding(_SLURM, "ok", found, _how_to_examine_nodes(situation))
    )


def _site(situation: Situation) -> Site:
    """Return the particulars of the cluster, none if their file is wrong, which `site` reports."""
    try:
        return Site.read(situation.folder)
    except InputError:
        return Site()


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
        f"{found}; the steps of a campaign ask for {usual} minutes until profiles are measured, "
        f"more than {default.name} allows",
        f"set resources.runtime_minutes in the campaign file to {limit:.0f} at most, or choose "
        f"another partition in {SITE}",
    )


def _judge_nodes(found: str) -> Finding | None:
    """Warn about nodes that take no jobs because they are down, drained or failing."""
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
        f"{found}; these nodes take no jobs: {listed}{more}",
        "fix the reason and run `scontrol update nodename=NAME state=resume`, or ask your site's "
        "support; jobs that fit on the other nodes run",
    )


def _how_to_examine_nodes(situation: Situation) -> str:
    if situation.allocation is not None or not installed("sbatch"):
        return ""
    doctor = shlex.quote(f"{shlex.quote(sys.executable)} -m hpc_lpm doctor")
    return (
        "the ranks ran on this machine, outside a Slurm job; to examine nodes of the cluster, run: "
        f"sbatch --nodes=2 --ntasks=2 --wait --output=doctor.txt --wrap={doctor}; cat doctor.txt"
    )


_ACCOUNTING = "accounting"

PROFILE = Path("slurm/config.v8+.yaml")
_FIRST_STATUS = "slurm-init-seconds-before-status-checks"


def check_accounting(situation: Situation) -> Finding:
    """Check that the Slurm profile in the current folder suits the cluster's accounting.

    Where Slurm keeps no accounts, sacct is installed but fails, and a campaign that asks it for the
    state of its jobs waits for ever.
    """
    if not installed("sacct"):
        return Finding(_ACCOUNTING, "ok", "not installed on this machine")
    settings = _profile_settings(situation.folder / PROFILE)
    answer = ask(["sacct", "--noheader", "--allocations", "--starttime=now", "--format=jobid"])
    if not answer.done:
        return _without_accounting(answer.complaint(), settings)
    accounts = _accounts()
    if accounts and not _site(situation).account and settings.get("slurm-no-account"):
        return Finding(
            _ACCOUNTING,
            "ok",
            f"sacct answers; your accounts: {', '.join(accounts)}",
            f"if your site charges jobs to an account, set account in {SITE}",
        )
    return Finding(_ACCOUNTING, "ok", "sacct answers")


def _without_accounting(complaint: str, settings: dict[str, Any]) -> Finding:
    found = f"sacct fails: {complaint}"
    if settings.get("slurm-status-command") == "squeue" and settings.get("slurm-no-account"):
        asked = 3 * int(settings.get(_FIRST_STATUS, 40))
        kept = _seconds_in_queue()
        if kept is not None and kept < asked:
            return Finding(
                _ACCOUNTING,
                "warning",
                f"{found}; Slurm forgets a job {kept} s after its end (MinJobAge), and the "
                f"executor then asks sacct, so that a campaign waits for ever",
                f"have MinJobAge set to {asked} or more in slurm.conf, or lower {_FIRST_STATUS} in "
                f"{PROFILE} to a third of it",
            )
        return Finding(
            _ACCOUNTING,
            "ok",
            f"{found}; {PROFILE} does without it (it uses squeue, and no account)",
        )
    return Finding(
        _ACCOUNTING,
        "warning",
        f"{found}; the jobs of a campaign would seem to run for ever",
        f"set `slurm-status-command: squeue` and `slurm-no-account: true` in {PROFILE}",
    )


def _seconds_in_queue() -> int | None:
    """Return how long squeue shows a job after its end, None if the controller does not tell."""
    answer = ask(["scontrol", "show", "config"])
    kept = re.search(r"^MinJobAge *= *(\d+)", answer.output, re.MULTILINE) if answer.done else None
    return int(kept[1]) if kept else None


def _accounts() -> list[str]:
    answer = ask(
        ["sacctmgr", "--noheader", "--parsable2", "show", "user", "withassoc", "format=account"]
    )
    return sorted(set(filter(None, answer.output.split()))) if answer.done else []


def _profile_settings(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return document if isinstance(document, dict) else {}


_MPI_PLUGIN = "mpi plugin"

_TRIAL_SECONDS = 60.0
_SIZE = "from mpi4py import MPI; print('ranks', MPI.COMM_WORLD.size)"
_KEEP_MPIRUN = "keep `mpi: mpirun` as the campaign's launcher"


def check_mpi_plugin(situation: Situation) -> Finding:
    """Check that srun has the plugin that our MPI library needs, and try it if in a job."""
    if not installed("srun"):
        return Finding(
            _MPI_PLUGIN, "ok", "there is no srun on this machine; mpirun starts the ranks"
        )
    offers = ask(["srun", "--mpi=list"])
    if not offers.done:
        return Finding(
            _MPI_PLUGIN,
            "warning",
            f"srun is installed but fails: {offers.complaint()}",
            f"fix what the check `slurm` reports; until then {_KEEP_MPIRUN}",
        )
    offered = _plugins_in(offers)
    default = (slurm_settings() or {}).get("MpiDefault", "")
    library = situation.jobs[0].library if situation.jobs else "Open MPI"
    needed = "pmix" if "Open MPI" in library else "pmi2"
    found = f"MpiDefault={default or 'unknown'}; srun offers {', '.join(offered) or 'nothing'}"
    if default and default not in {"none", *offered}:
        return Finding(
            _MPI_PLUGIN,
            "warning",
            f"{found}; the default is not among them, so that every srun fails",
            "export SLURM_MPI_TYPE=none, or have MpiDefault=none set in slurm.conf; "
            f"{_KEEP_MPIRUN}",
        )
    if needed not in offered:
        return Finding(
            _MPI_PLUGIN,
            "ok",
            f"{found}, but not {needed}, which our MPI library needs: srun cannot start ranks",
            f"{_KEEP_MPIRUN}, which needs no plugin, or ask your site's support for Slurm's "
            f"{needed} plugin",
        )
    option = "" if default == needed else f" --mpi={needed}"
    if situation.allocation is None:
        return Finding(
            _MPI_PLUGIN,
            "ok",
            f"{found}; srun{option} may start our ranks (only a job can try this)",
        )
    return _try_plugin(needed, found, option)


def _try_plugin(needed: str, found: str, option: str) -> Finding:
    """Start two ranks with srun in this Slurm job and check that they know each other."""
    command = ["srun", "--overlap", "--overcommit", "--nodes=1", "--ntasks=2", f"--mpi={needed}"]
    environment = outside_of_ranks(os.environ)
    program = [sys.executable, "-c", _SIZE]
    answer = ask([*command, *program], environment=environment, seconds=_TRIAL_SECONDS)
    if answer.done and answer.output.count("ranks 2") == 2:
        return Finding(_MPI_PLUGIN, "ok", f"{found}; srun{option} starts our ranks (tried)")
    why = "its ranks do not know each other" if answer.done else answer.complaint()
    return Finding(
        _MPI_PLUGIN,
        "warning",
        f"{found}, but a step with --mpi={needed} fails: {why}",
        f"{_KEEP_MPIRUN}, or have the library of Slurm's {needed} plugin (libpmix) installed on "
        "all nodes",
    )


def _plugins_in(answer: Answer) -> list[str]:
    """Return the names of the plugins that `srun --mpi=list` prints.

    Each name is on a line of its own; old versions of srun print to stderr, with a prefix `srun: `.
    """
    names = []
    for line in (answer.output + "\n" + answer.errors).splitlines():
        word = line.removeprefix("srun:").strip()
        if re.fullmatch(r"[a-z][a-z0-9_]*", word):
            names.append(word)
    return sorted(set(names))


_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")


def minutes_of(text: str) -> float | None:
    """Return a time in Slurm's notation in minutes, or None if it is unlimited.

    The notation is `minutes[:seconds]`, `hours:minutes:seconds` or
    `days-hours[:minutes[:seconds]]`.
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
