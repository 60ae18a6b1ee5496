"""The link between neighbouring ranks: measured by ping-pong, or assumed for a single rank."""

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from hpc_lpm.native_waits import DEFAULT_LIMIT_SECONDS, bounded_by_thread
from hpc_lpm.profile_file import Link, LinkProfile

if TYPE_CHECKING:
    from mpi4py import MPI

MESSAGE_BYTES = tuple(8 * 4**power for power in range(11))
"""Sizes of the messages, from 8 B to 8 MiB."""

LATENCY_UP_TO_BYTES = 128
BANDWIDTH_FROM_BYTES = 32 * 1024

ASSUMED_LATENCY_SECONDS = 5e-6
"""Latency assumed between two processes of one machine when none can be measured."""

_BURSTS = 5
_PAUSE_SECONDS = 0.02
_BYTES_PER_BURST = 32 * 2**20
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 50


@dataclass(frozen=True)
class LinkMeasurement:
    """The link to plan with, and the link measured between each pair of neighbours."""

    link: LinkProfile
    pairs: tuple[Link, ...]


def measure_link(
    communicator: "MPI.Intracomm", limit_seconds: float = DEFAULT_LIMIT_SECONDS
) -> LinkMeasurement:
    """Play ping-pong between ranks k and k + 1, pair after pair; every rank must call this.

    A pair that takes longer than `limit_seconds` ends the process, see `native_waits`.

    Latency is half the median round trip of tiny messages, bandwidth comes from a fit on the large
    ones (see `fit_link`). Each is taken from the best of several bursts: while another process
    holds a rank's core, a round trip measures the scheduler instead of the link. The link is the
    median over the pairs. All ranks return the same measurement.
    """
    pairs: list[Link] = []
    for left in range(communicator.size - 1):
        bursts = []
        with bounded_by_thread(limit_seconds, communicator.rank, "to measure a link"):
            for _ in range(_BURSTS):
                time.sleep(_PAUSE_SECONDS)
                communicator.Barrier()
                bursts.append(_ping_pong(communicator, left))
            best = communicator.bcast([min(times) for times in zip(*bursts, strict=True)], left)
        pairs.append(fit_link(MESSAGE_BYTES, best))
    return LinkMeasurement(
        LinkProfile(
            latency_seconds=median(pair.latency_seconds for pair in pairs),
            bandwidth_bytes_per_second=median(pair.bandwidth_bytes_per_second for pair in pairs),
        ),
        tuple(pairs),
    )


def fit_link(sizes_bytes: tuple[int, ...], one_way_seconds: list[float]) -> Link:
    """Fit latency and bandwidth to the median one-way time of each message size.

    Latency is the median over messages of at most `LATENCY_UP_TO_BYTES`, bandwidth the inverse
    slope of a line through those from `BANDWIDTH_FROM_BYTES`, fitted to least relative errors.
    """
    sizes = np.array(sizes_bytes, dtype=np.float64)
    seconds = np.array(one_way_seconds, dtype=np.float64)
    large = sizes >= BANDWIDTH_FROM_BYTES
    slope, _ = np.polyfit(sizes[large], seconds[large], 1, w=1.0 / seconds[large])
    # Noise can tilt the line downwards; the largest message then bounds the bandwidth from below.
    bandwidth = 1.0 / slope if slope > 0 else sizes[-1] / seconds[-1]
    return Link(
        latency_seconds=float(np.median(seconds[sizes <= LATENCY_UP_TO_BYTES])),
        bandwidth_bytes_per_second=float(bandwidth),
    )


def assume_link() -> LinkProfile:
    """Return a stand-in, when there is one rank, for a link between two processes of this machine.

    A message through shared memory is copied in and out again, so the bandwidth is half of what is
    measured for copying 8 MiB in this process. The latency is `ASSUMED_LATENCY_SECONDS`.
    """
    source = np.ones(MESSAGE_BYTES[-1], dtype=np.uint8)
    target = np.zeros_like(source)
    times = []
    for _ in range(_FEWEST_ROUNDS):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return LinkProfile(
        latency_seconds=ASSUMED_LATENCY_SECONDS,
        bandwidth_bytes_per_second=source.nbytes / (2.0 * median(times)),
    )


def _ping_pong(communicator: "MPI.Intracomm", left: int) -> list[float]:
    """Return the median one-way seconds of each message size, which only rank `left` should use."""
    right = left + 1
    medians = []
    for size in MESSAGE_BYTES:
        message = np.zeros(size, dtype=np.uint8)
        rounds = min(max(_BYTES_PER_BURST // size, _FEWEST_ROUNDS), _MOST_ROUNDS)
        times = []
        for _ in range(rounds if communicator.rank in (left, right) else 0):
            start = time.perf_counter()
            if communicator.rank == left:
                communicator.Send(message, dest=right)
                communicator.Recv(message, source=right)
            else:
                communicator.Recv(message, source=left)
                communicator.Send(message, dest=left)
            times.append((time.perf_counter() - start) / 2.0)
        medians.append(median(times) if times else 0.0)
    return medians
