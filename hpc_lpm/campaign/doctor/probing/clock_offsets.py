"""How far the wall clocks of the hosts are apart."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpc_lpm.campaign.doctor.probing.messages import NoAnswerError, Partner
from hpc_lpm.campaign.doctor.reports import ClockOffset

if TYPE_CHECKING:
    from mpi4py import MPI

_ROUNDS = 20
_TAG = 101
_LIMIT_SECONDS = 5.0


def measure_offsets(
    communicator: "MPI.Intracomm", representatives: Sequence[int], hosts: Sequence[str]
) -> tuple[ClockOffset, ...]:
    """Return, on rank 0, each other host's clock minus rank 0's; `hosts` has every rank's.

    Cristian's algorithm (F. Cristian, Probabilistic clock synchronization, 1989), as in NTP: the
    other clock was read half a round trip after the question, give or take that half; of several
    rounds the quickest counts.
    """
    others = [rank for rank in representatives if rank]
    if communicator.rank in others:
        _answer(communicator, _LIMIT_SECONDS * len(others))
    if communicator.rank:
        return ()
    return tuple(_ask(communicator, rank, hosts[rank]) for rank in others)


def _ask(communicator: "MPI.Intracomm", rank: int, host: str) -> ClockOffset:
    partner = Partner(communicator, rank, _TAG, _LIMIT_SECONDS)
    readings: list[tuple[float, float]] = []
    try:
        for _ in range(_ROUNDS):
            # The round trip is timed by the clock that nobody sets.
            asked, start = time.time(), time.perf_counter()
            partner.send_number(asked)
            there = partner.receive_number()
            half = (time.perf_counter() - start) / 2.0
            readings.append((half, there - (asked + half)))
    except NoAnswerError:
        return ClockOffset(host=host, offset_seconds=None, uncertainty_seconds=None)
    half, offset = min(readings)
    return ClockOffset(host=host, offset_seconds=offset, uncertainty_seconds=half)


def _answer(communicator: "MPI.Intracomm", limit_seconds: float) -> None:
    partner = Partner(communicator, 0, _TAG, limit_seconds)
    try:
        for _ in range(_ROUNDS):
            partner.receive_number()
            partner.send_number(time.time())
    except NoAnswerError:
        return  # rank 0 says so
