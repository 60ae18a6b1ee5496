"""The nodes of a Slurm job that are down while the job goes on, as one does under `--no-kill`."""

import re
from collections.abc import Iterable, Mapping

from hpc_lpm.cluster.allocation import in_allocation
from hpc_lpm.host_names import host_names
from hpc_lpm.programs import ask

_GONE = re.compile(r"(down|fail|error|unknown|boot|reboot|power)|.*\*$", re.IGNORECASE)
"""States of nodes on which nothing can be started; `*` marks one that does not answer."""


def nodes_down(nodes: Iterable[str]) -> list[str]:
    """Return those of these nodes that Slurm takes for lost, none if it does not answer."""
    listed = ",".join(nodes)
    if not listed:
        return []
    answer = ask(["sinfo", "--noheader", "--Node", f"--nodes={listed}", "--format=%N %T"])
    pairs = [line.split() for line in answer.output.splitlines()] if answer.done else []
    found = [pair[0] for pair in pairs if len(pair) == 2 and _GONE.match(pair[1])]
    return list(dict.fromkeys(found))


def places_left(environment: Mapping[str, str]) -> dict[str, int] | None:
    """Return the tasks of each node of this job that is up; None if none is lost, or in no job."""
    if not in_allocation(environment):
        return None
    nodes = host_names(environment["SLURM_JOB_NODELIST"])
    down = nodes_down(nodes) if len(nodes) > 1 else []
    if not down:
        return None
    tasks = _tasks_of_nodes(environment.get("SLURM_TASKS_PER_NODE", ""))
    tasks += [1] * (len(nodes) - len(tasks))
    return {node: count for node, count in zip(nodes, tasks, strict=False) if node not in down}


def _tasks_of_nodes(text: str) -> list[int]:
    """Return the numbers in a text such as `2(x3),1`, which stands for 2, 2, 2 and 1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]
