"""The links between neighbouring ranks of each node."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from hpc_lpm.campaign.doctor.probing.meeting import Meeting
from hpc_lpm.campaign.doctor.reports import NeighbourLink
from hpc_lpm.profiling.link import measure_link

if TYPE_CHECKING:
    from mpi4py import MPI

MOST_RANKS_A_NODE = 8
"""Of a node with more ranks, the links between the first ones stand for all."""

_MEASURING_SECONDS = 60.0
_PURPOSE = "the links within nodes"


def measure_neighbours(meeting: Meeting, hosts: Sequence[str]) -> tuple[NeighbourLink, ...]:
    """Return, on rank 0, the links within all nodes; all nodes measure at the same time.

    Every rank must call this; `hosts` has the host of each rank.

    Raises:
        RanksMissingError: if a rank does not come to the end.
    """
    communicator = meeting.communicator
    host = hosts[communicator.rank]
    members = [rank for rank, other in enumerate(hosts) if other == host][:MOST_RANKS_A_NODE]
    own: list[NeighbourLink] = []
    meeting.gather(None, _PURPOSE)  # MPI's own operations have no limit: now all ranks are here
    if len(members) > 1 and communicator.rank in members:
        # Of the node's ranks alone: a Split would send between all nodes.
        group = communicator.group.Incl(members)
        own = _measure(communicator.Create_group(group), members)
    gathered = meeting.gather(own, _PURPOSE, extra_seconds=_MEASURING_SECONDS)
    return tuple(link for links in gathered for link in links)


def _measure(local: "MPI.Intracomm", members: Sequence[int]) -> list[NeighbourLink]:
    """Return the links of a node on the first of its ranks; the others return nothing."""
    links = measure_link(local).pairs
    first = local.rank == 0
    local.Free()
    return [
        NeighbourLink(
            ranks=pair,
            latency_seconds=link.latency_seconds,
            bandwidth_bytes_per_second=link.bandwidth_bytes_per_second,
        )
        for pair, link in zip(pairwise(members), links, strict=True)
        if first
    ]
