"""The input of every check, a situation, and its output, a finding."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_lpm.cluster.allocation import with_allocation
from hpc_lpm.doctor.probe_report import JobReport

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """The result of one check: a verdict, what was found, and how to fix it if need be."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Allocation:
    """A Slurm job: its id, its number of nodes and the number of tasks that were requested."""

    job: str
    nodes: int
    tasks: int


def allocation_of_slurm(environment: Mapping[str, str] = os.environ) -> Allocation | None:
    """Return the Slurm job that this process is part of, or None outside a job.

    The variables of the job are read, not those of a step: a batch script is a single process on
    the first node, however many tasks its job requested.
    """
    environment = with_allocation(environment)
    job = environment.get("SLURM_JOB_ID", "")
    if not job:
        return None
    nodes = _number(environment, "SLURM_JOB_NUM_NODES", "SLURM_NNODES")
    tasks = _number(environment, "SLURM_NTASKS", "SLURM_NPROCS")
    if not tasks:  # the job requested a number of tasks per node
        tasks = _tasks_on_all_nodes(environment.get("SLURM_TASKS_PER_NODE", ""))
    return Allocation(job, max(1, nodes), max(1, nodes, tasks))


def _number(environment: Mapping[str, str], *names: str) -> int:
    values = (environment.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit()), 0)


def _tasks_on_all_nodes(text: str) -> int:
    """Return the sum of a list of tasks per node as Slurm writes it, such as `2(x3),1`."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return sum(int(tasks) * int(nodes or 1) for tasks, nodes in parts)


@dataclass(frozen=True)
class Situation:
    """What is known about the machine when the checks are made.

    Attributes:
        ranks_asked: how many ranks the user asked for.
        processes: how many processes the launcher started.
        jobs: the reports of the MPI jobs that answered. There is exactly one if all is well, one
            per process if the launcher and the MPI library do not work together (each process is
            then a job of its own), and none if nothing started.
        folder: the folder in which campaigns would be started.
        launcher: the launcher's name, for messages.
        problem: what went wrong when the ranks were started, or empty.
        allocation: the Slurm job that this process is part of, if any.
    """

    ranks_asked: int
    processes: int
    jobs: tuple[JobReport, ...]
    folder: Path
    launcher: str = "mpirun"
    problem: str = ""
    allocation: Allocation | None = None

    @property
    def job(self) -> JobReport | None:
        """The report of the MPI job, if there is one job with as many ranks as were asked for."""
        if len(self.jobs) == 1 and len(self.jobs[0].ranks) == self.ranks_asked:
            return self.jobs[0]
        return None

    def not_examined(self, check: str) -> Finding:
        """Return the finding of a check for which the ranks reported too little."""
        reason = self.job.unfinished if self.job is not None else ""
        return Finding(check, "warning", f"not examined: {reason or _NO_RANKS}", SEE_RANKS)


_NO_RANKS = "the ranks did not start as asked"
SEE_RANKS = "first fix what the check `ranks` reports"
"""The remedy where a check could not do its work because ranks did not start or did not finish."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun, such as `1 rank` or `2 ranks`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
