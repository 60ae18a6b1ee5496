"""What Slurm gave to the job that this process is in."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpc_lpm.cluster.allocation import with_allocation


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
