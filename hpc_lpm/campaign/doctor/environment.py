"""Whether all nodes run the same Python with the same packages."""

import shlex
import sys

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.reports import by_host
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.programs import ask, installed

NAME = "environment"

_SEEING_SECONDS = 30.0
_ONE_FOLDER = (
    "install once, in a folder on a file system that all nodes mount (`make setup` in a checkout "
    "there), and start with the Python of its .venv"
)


def check_environment(situation: Situation) -> Finding:
    """Judge what the ranks run; where none came in a job of several nodes, ask which see Python."""
    job = situation.job
    if job is None:
        return _without_ranks(situation)
    hosts = {host: local[0][1] for host, local in by_host(job.ranks).items()}
    for what in job.ranks[0].software.versions:
        differing = _differing({h: r.software.versions.get(what, "") for h, r in hosts.items()})
        if differing:
            return Finding(NAME, "failed", f"{what} differs: {differing}", _ONE_FOLDER)
    differing = _differing({host: rank.software.executable for host, rank in hosts.items()})
    if differing:
        return Finding(NAME, "warning", f"Python is not the same file: {differing}", _ONE_FOLDER)
    everywhere = f" on all {len(hosts)} nodes" if len(hosts) > 1 else ""
    return Finding(NAME, "ok", f"{job.ranks[0].software.executable}{everywhere}")


def _differing(values: dict[str, str]) -> str:
    """Return which hosts have which value, empty if all have the same."""
    having: dict[str, list[str]] = {}
    for host, value in values.items():
        having.setdefault(value, []).append(host)
    if len(having) == 1:
        return ""
    return "; ".join(f"{one} on {', '.join(names[:4])}" for one, names in having.items())


def _without_ranks(situation: Situation) -> Finding:
    allocation = situation.allocation
    if allocation is None or allocation.nodes == 1 or not installed("srun"):
        return Finding(NAME, "warning", "not looked at: the ranks did not come", "mend the ranks")
    look = f"test -x {shlex.quote(sys.executable)} || hostname"
    answer = ask(
        [
            *("srun", "--overlap", "--mpi=none", f"--nodes={allocation.nodes}"),
            *("--ntasks-per-node=1", "sh", "-c", look),
        ],
        seconds=_SEEING_SECONDS,
    )
    blind = ", ".join(answer.output.split())
    if answer.done and blind:
        return Finding(NAME, "failed", f"{sys.executable} is not there on {blind}", _ONE_FOLDER)
    if answer.done:
        return Finding(NAME, "ok", f"{sys.executable} is there on all {allocation.nodes} nodes")
    return Finding(
        NAME,
        "warning",
        f"srun could not ask the nodes for {sys.executable}: {answer.complaint()}",
        "start `srun hostname` in a job and mend what it says",
    )
