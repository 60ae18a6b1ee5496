"""Checks over which network the nodes of a job talk."""

from hpc_lpm.doctor.probe_report import by_host
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.interfaces import OF_LIBRARIES

_NAME = "network"
_SHOWN = 8


def check_network(situation: Situation) -> Finding:
    """Check that every node has an interface which holds the address of its own name."""
    if not situation.jobs or not situation.jobs[0].ranks:
        return situation.not_examined(_NAME)
    hosts = {host: local[0][1] for host, local in by_host(situation.jobs[0].ranks).items()}
    if len(hosts) == 1:
        return Finding(_NAME, "ok", "one node, whose ranks talk through its memory")
    by_user = {host: rank.network_of_user for host, rank in hosts.items() if rank.network_of_user}
    if by_user:
        return Finding(_NAME, "ok", f"as {next(iter(by_user.values()))} says")
    unknown = [host for host, rank in hosts.items() if not rank.interface]
    if unknown:
        named = ", ".join(unknown[:_SHOWN])
        return Finding(
            _NAME,
            "warning",
            f"the name of {named} leads to no address of an interface there, so that Open MPI "
            "tries every interface that is up, those with one address on several nodes too "
            "(docker0, virbr0)",
            f"name the network that joins the nodes: {OF_LIBRARIES[0]}=10.0.0.0/24 for Open MPI, "
            f"{OF_LIBRARIES[1]}=eth0 for torch",
        )
    used = [f"{host} {rank.interface}" for host, rank in hosts.items()]
    more = f" and {len(used) - _SHOWN} more" if len(used) > _SHOWN else ""
    return Finding(_NAME, "ok", f"nodes talk over {', '.join(used[:_SHOWN])}{more}")
