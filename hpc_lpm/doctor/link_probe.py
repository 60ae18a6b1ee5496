"""Measures latency and bandwidth between the ranks of a node and between every pair of nodes."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from hpc_lpm.doctor.bounded_waits import Buffer, Meeting, NoAnswerError, Partner
from hpc_lpm.doctor.probe_report import NeighbourLink, NodeLink
from hpc_lpm.profiling.link import measure_link

if TYPE_CHECKING:
    from mpi4py import MPI


MOST_RANKS_A_NODE = 8
"""Of a node with more ranks, the links between the first ones stand for all."""

_NEIGHBOURS_SECONDS = 60.0
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
        own = _measure_on_node(communicator.Create_group(group), members)
    gathered = meeting.gather(own, _PURPOSE, extra_seconds=_NEIGHBOURS_SECONDS)
    return tuple(link for links in gathered for link in links)


def _measure_on_node(local: "MPI.Intracomm", members: Sequence[int]) -> list[NeighbourLink]:
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


ALL_PAIRS_SECONDS = 15.0
"""For all rounds of the tournament together."""

MOST_SECONDS_A_PAIR = 1.0
LARGEST_BYTES = 8 * 2**20
LIMIT_SECONDS, LIMIT_AFTER_SILENCE_SECONDS = 10.0, 2.0
"""How long a pair waits for a message, and how long once some pair has waited in vain."""

_NAMED = 8
_TRIAL_BYTES = 64 * 1024
_TINY_BYTES = 8
_BURSTS, _ROUND_TRIPS = 5, 20
_TRANSFERS = 5
_FIRST_TAG, _TAGS = 1_000, 10_000


@dataclass(frozen=True)
class NodeLinks:
    """The links between nodes; `complete` tells if they are all, or time ran out before."""

    links: tuple[NodeLink, ...]
    complete: bool


def measure_node_links(
    meeting: Meeting,
    representatives: Sequence[int],
    hosts: Sequence[str],
    begin_round: Callable[[NodeLinks, str], None],
) -> NodeLinks:
    """Return, on rank 0, the link between the hosts of each two of the representatives.

    Every rank must call this; `hosts` has the host of each rank. Pairs without a node in common
    are measured at the same time, as in training, and the more rounds that takes, the shorter
    each: the time is bounded. Two nodes between which no message comes through have a link of None,
    unless MPI itself ends all ranks then: before each round, `begin_round` gets on rank 0 what was
    measured so far and which nodes are to meet.

    Raises:
        RanksMissingError: if a rank does not come to the end of a round.
    """
    rounds = list(tournament_rounds(len(representatives)))
    budget_seconds = min(MOST_SECONDS_A_PAIR, ALL_PAIRS_SECONDS / max(1, len(rounds)))
    limit_seconds = LIMIT_SECONDS
    deadline = time.perf_counter() + 2.0 * ALL_PAIRS_SECONDS
    found: list[NodeLink] = []
    for number, pairs in enumerate(rounds):
        if meeting.communicator.rank == 0:
            names = [
                f"{hosts[representatives[a]]} and {hosts[representatives[b]]}" for a, b in pairs
            ]
            begin_round(NodeLinks(tuple(found), complete=False), ", ".join(names[:_NAMED]))
        own = _play(meeting, representatives, pairs, number, budget_seconds, limit_seconds)
        purpose = "the links between nodes"
        results = meeting.gather(own, purpose, extra_seconds=_TRANSFERS * limit_seconds)
        for a, b in pairs if results else ():
            left, right = representatives[a], representatives[b]
            found.append(_named(results[left], hosts[left], hosts[right]))
        silence = any(link.latency_seconds is None for link in found)
        limit_seconds, go_on = meeting.share(
            (
                LIMIT_AFTER_SILENCE_SECONDS if silence else LIMIT_SECONDS,
                time.perf_counter() < deadline,
            ),
            purpose,
        )
        if not go_on:
            return NodeLinks(tuple(found), complete=number + 1 == len(rounds))
    return NodeLinks(tuple(found), complete=True)


Measured = tuple[float, float, int]
"""Latency [s], bandwidth [bytes/s] and the size of the largest message [bytes]."""


def _play(
    meeting: Meeting,
    representatives: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    number: int,
    budget_seconds: float,
    limit_seconds: float,
) -> Measured | None:
    """Play this rank's part in a round; None if it has none, or if its partner was silent."""
    rank = meeting.communicator.rank
    tag = _FIRST_TAG + number % _TAGS
    for a, b in pairs:
        left, right = representatives[a], representatives[b]
        if rank not in (left, right):
            continue
        other = right if rank == left else left
        partner = Partner(meeting.communicator, other, tag, limit_seconds)
        try:
            if rank == left:
                return _lead(partner, budget_seconds)
            _follow(partner)
        except NoAnswerError:
            return None
    return None


def _lead(partner: Partner, budget_seconds: float) -> Measured:
    tiny = np.zeros(_TINY_BYTES, dtype=np.uint8)
    _exchange(partner, tiny, tiny)  # sets the connection up
    bursts: list[float] = []
    latency_deadline = time.perf_counter() + budget_seconds / 4.0
    more = True
    while more:
        # Others may hold a rank's core for a while: of several bursts the best counts.
        trips = [_exchange(partner, tiny, tiny) for _ in range(_ROUND_TRIPS)]
        bursts.append(median(trips) / 2.0)
        more = len(bursts) < _BURSTS and time.perf_counter() < latency_deadline
        partner.send_number(float(more))
    latency = min(bursts)
    trial = np.zeros(_TRIAL_BYTES, dtype=np.uint8)
    trip = min(_exchange(partner, trial, trial) for _ in range(2))
    size = _size(trip, budget_seconds)
    partner.send_number(float(size))
    large = np.zeros(size, dtype=np.uint8)
    there = min(_exchange(partner, large, tiny) for _ in range(_TRANSFERS))
    back = min(_exchange(partner, tiny, large) for _ in range(_TRANSFERS))
    # One of the two messages is tiny and takes the latency; what is left of the other's is size.
    slower = max(there, back)
    return latency, size / max(slower - 2.0 * latency, slower / 10.0), size


def _follow(partner: Partner) -> None:
    tiny = np.zeros(_TINY_BYTES, dtype=np.uint8)
    _reply(partner, tiny, tiny)
    more = 1.0
    while more:
        for _ in range(_ROUND_TRIPS):
            _reply(partner, tiny, tiny)
        more = partner.receive_number()
    trial = np.zeros(_TRIAL_BYTES, dtype=np.uint8)
    for _ in range(2):
        _reply(partner, trial, trial)
    large = np.zeros(int(partner.receive_number()), dtype=np.uint8)
    for _ in range(_TRANSFERS):
        _reply(partner, large, tiny)
    for _ in range(_TRANSFERS):
        _reply(partner, tiny, large)


def _exchange(partner: Partner, question: Buffer, answer: Buffer) -> float:
    start = time.perf_counter()
    partner.send(question)
    partner.receive(answer)
    return time.perf_counter() - start


def _reply(partner: Partner, question: Buffer, answer: Buffer) -> None:
    partner.receive(question)
    partner.send(answer)


def _size(trial_seconds: float, budget_seconds: float) -> int:
    """Return the largest power of two [bytes] with which all transfers stay within the budget."""
    bytes_per_second = 2.0 * _TRIAL_BYTES / trial_seconds
    affordable = bytes_per_second * budget_seconds / 2.0 / (2 * _TRANSFERS)
    size = _TRIAL_BYTES
    while 2 * size <= min(affordable, LARGEST_BYTES):
        size *= 2
    return size


def _named(measured: Measured | None, left: str, right: str) -> NodeLink:
    latency, bandwidth, size = measured or (None, None, None)
    return NodeLink(
        nodes=(left, right),
        latency_seconds=latency,
        bandwidth_bytes_per_second=bandwidth,
        message_bytes=size,
    )


def tournament_rounds(players: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield rounds of disjoint pairs (a < b) such that every pair of players meets exactly once.

    The circle method (T. P. Kirkman, 1847; E. Lucas, Recreations mathematiques, 1883): one player
    keeps its seat, all others move on by one. It takes players - 1 rounds, players if odd::

        0 1 2      0 5 1      0 4 5
        5 4 3      4 3 2      3 2 1     ...
    """
    seats = players + players % 2  # with an odd number, one has nobody to play with each round
    circle = list(range(seats))
    for _ in range(seats - 1):
        facing = zip(circle[: seats // 2], reversed(circle[seats // 2 :]), strict=True)
        pairs = (tuple(sorted(pair)) for pair in facing)
        yield tuple((a, b) for a, b in pairs if b < players)
        circle = [circle[0], circle[-1], *circle[1:-1]]
