"""Whether the clocks run evenly and agree, so that times and traces mean something."""

import time
from pathlib import Path

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.reports import by_host
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "clock"

SKEW_SECONDS = 1.0
"""Ranks leave a barrier within this time of each other, even on a crowded core."""

DRIFT_SECONDS, DRIFT_SHARE = 0.05, 0.02
DAY_SECONDS = 86_400.0


def check_clock(situation: Situation) -> Finding:
    """Judge the wall clock against this file's age, the other clock and the other ranks."""
    behind = Path(__file__).stat().st_mtime - time.time()
    if behind > DAY_SECONDS:
        return _warning(f"the wall clock is {behind / DAY_SECONDS:.0f} days behind the files")
    ranks = situation.job.ranks if situation.job else ()
    for number, rank in enumerate(ranks):
        drift = abs(rank.wall_elapsed - rank.monotonic_elapsed)
        if drift > DRIFT_SECONDS + DRIFT_SHARE * rank.monotonic_elapsed:
            return _warning(
                f"rank {number}: in {rank.monotonic_elapsed:.2f} s the wall clock moved by "
                f"{rank.wall_elapsed:.2f} s"
            )
    hosts = by_host(ranks)
    for host, local in hosts.items():
        if (skew := _spread([rank.monotonic for _, rank in local])) > SKEW_SECONDS:
            return _warning(f"monotonic clocks of the ranks on {host} differ by {skew:.1f} s")
    skew = _spread([rank.wall for rank in ranks])
    if skew > SKEW_SECONDS:
        return _warning(f"wall clocks of the ranks differ by {skew:.1f} s")
    return Finding(NAME, "ok", f"even, ranks agree within {skew * 1e3:.1f} ms")


def _spread(times: list[float]) -> float:
    return max(times) - min(times) if times else 0.0


def _warning(found: str) -> Finding:
    return Finding(NAME, "warning", found, "synchronise the hosts' clocks (chrony or ntpd)")
