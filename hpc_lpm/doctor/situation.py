"""What checks are given and what they return: a situation and a finding."""

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
    """A check's verdict, what it saw, and what to do about it (empty where all is well)."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Allocation:
    """A job of Slurm: its number, its nodes and the tasks that were asked for."""

    job: str
    nodes: int
    tasks: int


def allocation_of_slurm(environment: Mapping[str, str] = os.environ) -> Allocation | None:
    """Return the allocation that this process is in, None outside one.

    A batch script is one process, on the first node, whatever the job asked for.
    """
    environment = with_allocation(environment)
    job = environment.get("SLURM_JOB_ID", "")
    if not job:
        return None
    nodes = _number(environment, "SLURM_JOB_NUM_NODES", "SLURM_NNODES")
    tasks = _number(environment, "SLURM_NTASKS", "SLURM_NPROCS")
    if not tasks:  # asked for as tasks a node
        tasks = _tasks_on_all_nodes(environment.get("SLURM_TASKS_PER_NODE", ""))
    return Allocation(job, max(1, nodes), max(1, nodes, tasks))


def _number(environment: Mapping[str, str], *names: str) -> int:
    values = (environment.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit()), 0)


def _tasks_on_all_nodes(text: str) -> int:
    """Return the sum of Slurm's list of tasks a node, such as `2(x3),1`."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return sum(int(tasks) * int(nodes or 1) for tasks, nodes in parts)


@dataclass(frozen=True)
class Situation:
    """The machine as seen from the ranks.

    `jobs` holds one report for each MPI job that answered: exactly one where all is well, one a
    process where the launcher and the MPI library do not know each other, none where nothing
    started. `problem` says what went wrong with the start. `processes` is how many the launcher,
    known by the name `launcher`, started. `allocation` is the job of Slurm that this is in.
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
        """The job with as many ranks as were asked for, if it came into being."""
        if len(self.jobs) == 1 and len(self.jobs[0].ranks) == self.ranks_asked:
            return self.jobs[0]
        return None

    @property
    def unmeasured(self) -> str:
        """Why what is missing in `job` was not measured."""
        if self.job is not None and self.job.unfinished:
            return self.job.unfinished
        return "the ranks did not come"
