"""Latency and bandwidth between neighbouring ranks."""

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "link"

ABSURD_LATENCY_SECONDS = 1e-3
"""Within one host a message takes microseconds; beyond this, something else is being measured."""


def check_link(situation: Situation) -> Finding:
    """Judge the slowest link between neighbours."""
    job = situation.job
    if job is None:
        return Finding(NAME, "warning", "not measured: the ranks did not come", "mend the ranks")
    if not job.links:
        return Finding(NAME, "ok", "one rank has no neighbour")
    latency = max(link.latency_seconds for link in job.links)
    bandwidth = min(link.bandwidth_bytes_per_second for link in job.links)
    found = f"latency {latency * 1e6:.1f} us, bandwidth {bandwidth / 1e9:.2f} GB/s"
    if len(job.links) > 1:
        found += f" at worst, of {len(job.links)} links"
    for left, link in enumerate(job.links):
        same_host = job.ranks[left].host == job.ranks[left + 1].host
        if same_host and link.latency_seconds > ABSURD_LATENCY_SECONDS:
            return Finding(
                NAME,
                "warning",
                f"{found}: ranks {left} and {left + 1} share a host, "
                f"{ABSURD_LATENCY_SECONDS * 1e6:.0f} us are too many there",
                "free the cores of other work, start no more ranks than cores, and let Open MPI "
                "use shared memory (no --mca btl without sm)",
            )
    return Finding(NAME, "ok", found)
