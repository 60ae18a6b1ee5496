"""The clocks of the hosts: how far they are apart, and whether they run evenly."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_lpm.doctor.bounded_waits import NoAnswerError, Partner
from hpc_lpm.doctor.probe_report import ClockOffset, by_host
from hpc_lpm.doctor.situation import Finding, Situation, Verdict

if TYPE_CHECKING:
    from mpi4py import MPI


NAME = "clock"

MONOTONIC_SKEW_SECONDS = 1.0
"""Ranks leave a meeting within this time of each other, even on a crowded core."""

OFFSET_SECONDS = 0.1
"""Hosts that are synchronised are within milliseconds."""

REFUSED_SECONDS = 300.0
"""By so much apart, a host takes the other's credentials (munge) for expired: Slurm fails."""

DRIFT_SECONDS, DRIFT_SHARE = 0.05, 0.02
DAY_SECONDS = 86_400.0


def check_clock(situation: Situation) -> Finding:
    """Judge the wall clock against this file's age, the other clock and the other hosts' clocks."""
    behind = Path(__file__).stat().st_mtime - time.time()
    if behind > DAY_SECONDS:
        return _bad(
            "warning", f"the wall clock is {behind / DAY_SECONDS:.0f} days behind the files"
        )
    job = situation.job
    if job is None or (len(job.clocks) < len(job.ranks) and not job.offsets):
        return _bad("warning", f"not compared: {situation.unmeasured}", "mend the ranks")
    far = [offset for offset in job.offsets if _certainly(offset) > OFFSET_SECONDS]
    if far:
        worst = max(far, key=_certainly)
        refused = _certainly(worst) > REFUSED_SECONDS
        return _bad(
            "failed" if refused else "warning",
            f"the wall clock of {worst.host} is {worst.offset_seconds:+.3g} s off that of "
            f"{job.ranks[0].host}"
            + (f", {len(far) - 1} more hosts are off as well" if len(far) > 1 else "")
            + (": Slurm and munge refuse each other" if refused else ""),
        )
    for number, reading in enumerate(job.clocks):
        drift = abs(reading.wall_elapsed - reading.monotonic_elapsed)
        if drift > DRIFT_SECONDS + DRIFT_SHARE * reading.monotonic_elapsed:
            return _bad(
                "warning",
                f"rank {number}: in {reading.monotonic_elapsed:.2f} s the wall clock moved by "
                f"{reading.wall_elapsed:.2f} s",
            )
    for host, local in by_host(job.ranks).items():
        times = [job.clocks[number].monotonic for number, _ in local if job.clocks]
        if times and (skew := max(times) - min(times)) > MONOTONIC_SKEW_SECONDS:
            return _bad(
                "warning", f"monotonic clocks of the ranks on {host} differ by {skew:.1f} s"
            )
    return Finding(NAME, "ok", f"even{_agreement(job.offsets)}")


def _certainly(offset: ClockOffset) -> float:
    """Return by how many seconds a clock is off at least."""
    if offset.offset_seconds is None or offset.uncertainty_seconds is None:
        return 0.0
    return abs(offset.offset_seconds) - offset.uncertainty_seconds


def _agreement(offsets: tuple[ClockOffset, ...]) -> str:
    known = [
        (abs(offset.offset_seconds), offset.uncertainty_seconds)
        for offset in offsets
        if offset.offset_seconds is not None and offset.uncertainty_seconds is not None
    ]
    if not known:
        return ""
    largest, uncertainty = max(known)
    return (
        f", hosts agree within {_short(largest)} (known to {_short(uncertainty)}, by half the "
        "shortest round trip)"
    )


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


def _bad(
    verdict: Verdict,
    found: str,
    remedy: str = "synchronise the hosts' clocks (chrony or ntpd; `chronyc tracking` on each)",
) -> Finding:
    return Finding(NAME, verdict, found, remedy)


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
        _answer_rank_0(communicator, _LIMIT_SECONDS * len(others))
    if communicator.rank:
        return ()
    return tuple(_ask_host(communicator, rank, hosts[rank]) for rank in others)


def _ask_host(communicator: "MPI.Intracomm", rank: int, host: str) -> ClockOffset:
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


def _answer_rank_0(communicator: "MPI.Intracomm", limit_seconds: float) -> None:
    partner = Partner(communicator, 0, _TAG, limit_seconds)
    try:
        for _ in range(_ROUNDS):
            partner.receive_number()
            partner.send_number(time.time())
    except NoAnswerError:
        return  # rank 0 says so
