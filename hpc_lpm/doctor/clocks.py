"""Whether the clocks of all hosts run evenly and agree, so that times and traces can be trusted."""

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
"""Ranks leave a collective operation within this time of each other, even on a crowded core."""

OFFSET_SECONDS = 0.1
"""Synchronized hosts agree within milliseconds."""

REFUSED_SECONDS = 300.0
"""Beyond this offset munge takes the other host's credentials for expired, and Slurm fails."""

DRIFT_SECONDS, DRIFT_SHARE = 0.05, 0.02
"""The wall clock may gain or lose this much, and this share of the time that has passed."""

DAY_SECONDS = 86_400.0


def check_clock(situation: Situation) -> Finding:
    """Compare the wall clock with a file's date, the monotonic clock and the other hosts."""
    behind = Path(__file__).stat().st_mtime - time.time()
    if behind > DAY_SECONDS:
        return _bad(
            "warning",
            f"the wall clock is {behind / DAY_SECONDS:.0f} days behind the date of {__file__}",
        )
    job = situation.job
    if job is None or (len(job.clocks) < len(job.ranks) and not job.offsets):
        return situation.not_examined(NAME)
    far = [offset for offset in job.offsets if _certain_offset(offset) > OFFSET_SECONDS]
    if far:
        worst = max(far, key=_certain_offset)
        refused = _certain_offset(worst) > REFUSED_SECONDS
        return _bad(
            "failed" if refused else "warning",
            f"the wall clock of {worst.host} differs from that of {job.ranks[0].host} by "
            f"{worst.offset_seconds:+.3g} s"
            + (f"; {len(far) - 1} more hosts differ as well" if len(far) > 1 else "")
            + ("; munge, and with it Slurm, refuses such hosts" if refused else ""),
        )
    for number, reading in enumerate(job.clocks):
        drift = abs(reading.wall_elapsed - reading.monotonic_elapsed)
        if drift > DRIFT_SECONDS + DRIFT_SHARE * reading.monotonic_elapsed:
            return _bad(
                "warning",
                f"rank {number}: the wall clock moved by {reading.wall_elapsed:.2f} s in "
                f"{reading.monotonic_elapsed:.2f} s",
            )
    for host, local in by_host(job.ranks).items():
        times = [job.clocks[number].monotonic for number, _ in local if job.clocks]
        if times and (skew := max(times) - min(times)) > MONOTONIC_SKEW_SECONDS:
            return _bad(
                "warning", f"monotonic clocks of the ranks on {host} differ by {skew:.1f} s"
            )
    return Finding(NAME, "ok", f"clocks run evenly{_agreement(job.offsets)}")


def _certain_offset(offset: ClockOffset) -> float:
    """Return by how many seconds a clock is off for certain."""
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
        f", hosts agree within {_short(largest)} (measured to {_short(uncertainty)}, half the "
        "shortest round trip)"
    )


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


def _bad(
    verdict: Verdict,
    found: str,
    remedy: str = "synchronize the hosts' clocks with chrony or ntpd (see `chronyc tracking`)",
) -> Finding:
    return Finding(NAME, verdict, found, remedy)


_ROUNDS = 20
_TAG = 101
_LIMIT_SECONDS = 5.0


def measure_offsets(
    communicator: "MPI.Intracomm", representatives: Sequence[int], hosts: Sequence[str]
) -> tuple[ClockOffset, ...]:
    """Measure the wall clock of every other host against that of rank 0; return this on rank 0.

    This is Cristian's algorithm (F. Cristian, Probabilistic clock synchronization, 1989), as in
    NTP: the other clock was read half a round trip after the question, plus or minus that half. The
    quickest of several rounds is used. Every rank must call this.

    Args:
        communicator: all ranks.
        representatives: one rank of each host, rank 0 first.
        hosts: the host of each rank.
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
            # The round trip is timed by the monotonic clock, which nobody sets.
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
        return  # rank 0 reports it
