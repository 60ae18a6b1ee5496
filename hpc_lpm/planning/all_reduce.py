"""What it costs to sum gradients over the replicas of a stage."""

from fractions import Fraction

from hpc_lpm.profile import LinkProfile


def ring_all_reduce_seconds(size_bytes: int, replicas: int, link: LinkProfile) -> Fraction:
    """Return the seconds that `replicas` need to sum `size_bytes` bytes each, in a ring of links.

    2 (R - 1) latency + 2 (R - 1) / R x bytes / bandwidth: in R - 1 rounds of reduce-scatter and as
    many of all-gather everyone sends one R-th of the bytes to the next (Thakur, Rabenseifner and
    Gropp, 2005); no algorithm sends fewer bytes (Patarasuk and Yuan, 2009). The additions are taken
    to hide behind the messages, and a stage without parameters to need no all-reduce.
    """
    if size_bytes == 0:
        return Fraction(0)
    rounds = 2 * (replicas - 1)
    message = Fraction(size_bytes, replicas) / Fraction(link.bandwidth_bytes_per_second)
    return rounds * (Fraction(link.latency_seconds) + message)
