"""Latency and bandwidth between neighbouring ranks of a node and between every pair of nodes."""

from collections import Counter
from statistics import median_high, median_low

from hpc_lpm.doctor.probe_report import JobReport, NodeLink
from hpc_lpm.doctor.situation import Finding, Situation

NAME = "link"

ABSURD_LATENCY_SECONDS = 1e-3
"""Within one host a message takes microseconds; beyond this, something else is being measured."""

OUTLIER_FACTOR = 2.0
"""A pair of nodes that is so many times slower than the median of all pairs is pointed out."""

TRIFLING_LATENCY_SECONDS = 5e-6
"""Latencies that differ by less differ by noise, or by a switch on the way."""

_SHOWN = 3


def check_link(situation: Situation) -> Finding:
    """Judge the links within nodes by what is possible, and those between nodes by each other."""
    job = situation.job
    if job is None:
        return Finding(NAME, "warning", "not measured: the ranks did not come", "mend the ranks")
    if len(job.ranks) == 1:
        return Finding(NAME, "ok", "one rank has no neighbour")
    if job.unfinished and not job.node_links:
        return Finding(NAME, "warning", f"not measured: {job.unfinished}", "mend the ranks")
    return (
        _judge_silence(job)
        or _judge_neighbours(job)
        or _judge_outliers(job)
        or _judge_end(job)
        or Finding(NAME, "ok", _described(job))
    )


def _judge_end(job: JobReport) -> Finding | None:
    if not job.unfinished:
        return None
    return Finding(NAME, "warning", f"{_described(job)}; {job.unfinished}", "mend the ranks")


def slow_pairs(links: tuple[NodeLink, ...]) -> list[NodeLink]:
    """Return the pairs that are far slower than the median of all, the slowest first."""
    latencies = [link.latency_seconds for link in links if link.latency_seconds is not None]
    bandwidths = [
        link.bandwidth_bytes_per_second
        for link in links
        if link.bandwidth_bytes_per_second is not None
    ]
    if not latencies or not bandwidths:
        return []
    # The better of two middle ones: of four nodes with a bad one, half of the pairs are slow.
    usual_latency, usual_bandwidth = median_low(latencies), median_high(bandwidths)

    def slowness(link: NodeLink) -> float:
        """Return by which factor a pair is slower than usual, in what it is worse at."""
        latency, bandwidth = link.latency_seconds, link.bandwidth_bytes_per_second
        if latency is None or bandwidth is None:
            return 0.0
        trifle = latency - usual_latency < TRIFLING_LATENCY_SECONDS
        return max(0.0 if trifle else latency / usual_latency, usual_bandwidth / bandwidth)

    return sorted(
        (link for link in links if slowness(link) > OUTLIER_FACTOR), key=slowness, reverse=True
    )


def _judge_silence(job: JobReport) -> Finding | None:
    silent = [link for link in job.node_links if link.latency_seconds is None]
    if not silent:
        return None
    return Finding(
        NAME,
        "failed",
        f"no message came through between {_pairs(silent)}, of {len(job.node_links)} pairs of "
        "nodes",
        "let Open MPI use the network that joins all nodes (--mca btl_tcp_if_include with its "
        "interface or its address, as in 10.0.0.0/16) and open it between them in the firewall",
    )


def _judge_neighbours(job: JobReport) -> Finding | None:
    for link in job.neighbours:
        if link.latency_seconds > ABSURD_LATENCY_SECONDS:
            left, right = link.ranks
            return Finding(
                NAME,
                "warning",
                f"{_described(job)}: ranks {left} and {right} share a host, "
                f"{ABSURD_LATENCY_SECONDS * 1e6:.0f} us are too many there",
                "free the cores of other work, start no more ranks than cores, and let Open MPI "
                "use shared memory (no --mca btl without sm)",
            )
    return None


def _judge_outliers(job: JobReport) -> Finding | None:
    slow = slow_pairs(job.node_links)
    if not slow:
        return None
    return Finding(
        NAME,
        "warning",
        f"{_described(job)}; far slower than the median of the pairs: "
        f"{_pairs(slow)}{_culprit(slow, job.node_links)}",
        "leave that node out (sbatch --exclude) and have its cable, port and network interface "
        "looked at, or ask for nodes under one switch (sbatch --switches=1)",
    )


def _described(job: JobReport) -> str:
    parts = []
    if job.neighbours:
        latency = max(link.latency_seconds for link in job.neighbours)
        bandwidth = min(link.bandwidth_bytes_per_second for link in job.neighbours)
        parts.append(
            f"within nodes {_speed(latency, bandwidth)}{_at_worst(len(job.neighbours), 'links')}"
        )
    measured = [link for link in job.node_links if link.latency_seconds is not None]
    if measured:
        latency = max(link.latency_seconds or 0.0 for link in measured)
        bandwidth = min(link.bandwidth_bytes_per_second or 0.0 for link in measured)
        sizes = {link.message_bytes or 0 for link in measured}
        smallest, largest = (f"{size / 2**20:g}" for size in (min(sizes), max(sizes)))
        size = smallest if smallest == largest else f"{smallest} to {largest}"
        parts.append(
            f"between nodes {_speed(latency, bandwidth)}{_at_worst(len(measured), 'pairs')}, "
            f"by messages of 8 B and {size} MiB"
        )
    if not job.node_links_complete and not job.unfinished:
        parts.append("not all pairs were measured, for want of time")
    return "; ".join(parts)


def _speed(latency_seconds: float, bandwidth_bytes_per_second: float) -> str:
    return (
        f"latency {latency_seconds * 1e6:.1f} us, bandwidth "
        f"{bandwidth_bytes_per_second / 1e9:.2f} GB/s"
    )


def _at_worst(count: int, what: str) -> str:
    return f" at worst, of {count} {what}" if count > 1 else ""


def _pairs(links: list[NodeLink]) -> str:
    named = []
    for link in links[:_SHOWN]:
        text = " and ".join(link.nodes)
        if link.latency_seconds is not None and link.bandwidth_bytes_per_second is not None:
            text += f" ({_speed(link.latency_seconds, link.bandwidth_bytes_per_second)})"
        named.append(text)
    more = len(links) - _SHOWN
    return ", ".join(named) + (f" and {more} more pairs" if more > 0 else "")


def _culprit(slow: list[NodeLink], links: tuple[NodeLink, ...]) -> str:
    """Name the node that all slow pairs have in common, if they are most of its pairs."""
    slow_of = Counter(node for link in slow for node in link.nodes)
    pairs_of = Counter(node for link in links for node in link.nodes)
    node, count = slow_of.most_common(1)[0]
    if count == len(slow) > 1 and 2 * count > pairs_of[node]:
        return f"; all of them are of {node}"
    return ""
