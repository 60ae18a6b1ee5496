"""The nodes of a Slurm job by name."""

from hpc_lpm.programs import ask


def host_names(node_list: str) -> list[str]:
    """Return the names in a list such as `n[1-2]`; the list itself where Slurm does not answer."""
    answer = ask(["scontrol", "show", "hostnames", node_list])
    names = answer.output.split() if answer.done else []
    return names or [node_list]
