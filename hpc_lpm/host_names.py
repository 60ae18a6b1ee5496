"""The names of the nodes of a Slurm job."""

from hpc_lpm.programs import ask


def host_names(node_list: str) -> list[str]:
    """Return the names in a list such as `n[1-2]`, or the list itself if Slurm does not answer."""
    answer = ask(["scontrol", "show", "hostnames", node_list])
    names = answer.output.split() if answer.done else []
    return names or [node_list]
