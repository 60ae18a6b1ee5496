"""The link: what the fit makes of message times, and what is assumed for a single rank."""

import subprocess
import sys

import numpy as np
import pytest

from hpc_lpm.profiling.link import ASSUMED_LATENCY_SECONDS, MESSAGE_BYTES, assume_link, fit_link


def test_message_sizes_span_8_bytes_to_8_mebibytes() -> None:
    assert (MESSAGE_BYTES[0], MESSAGE_BYTES[-1]) == (8, 8 * 2**20)


@pytest.mark.parametrize(("latency", "bandwidth"), [(2e-6, 8e9), (50e-6, 1.2e8)])
def test_fit_recovers_a_noisy_link(latency: float, bandwidth: float) -> None:
    noise = np.random.default_rng(0).uniform(0.97, 1.03, len(MESSAGE_BYTES))
    seconds = [
        (latency + size / bandwidth) * n for size, n in zip(MESSAGE_BYTES, noise, strict=True)
    ]
    link = fit_link(MESSAGE_BYTES, seconds)
    assert link.latency_seconds == pytest.approx(latency, rel=0.05)
    assert link.bandwidth_bytes_per_second == pytest.approx(bandwidth, rel=0.05)


def test_one_delayed_tiny_message_does_not_spoil_the_latency() -> None:
    seconds = [1e-6 + size / 1e9 for size in MESSAGE_BYTES]
    seconds[0] = 4e-3
    assert fit_link(MESSAGE_BYTES, seconds).latency_seconds < 2e-6


def test_a_line_that_falls_still_gives_a_bandwidth() -> None:
    link = fit_link(MESSAGE_BYTES, [0.01] * (len(MESSAGE_BYTES) - 1) + [0.001])
    assert link.bandwidth_bytes_per_second == pytest.approx(MESSAGE_BYTES[-1] / 0.001)


def test_assumed_link_is_plausible_for_memory() -> None:
    link = assume_link()
    assert link.latency_seconds == ASSUMED_LATENCY_SECONDS
    assert 1e8 < link.bandwidth_bytes_per_second < 1e12


def test_importing_the_package_never_starts_mpi() -> None:
    code = (
        "import sys, hpc_lpm.profiling.job, hpc_lpm.profiling.link, hpc_lpm.cli.profile;"
        "sys.exit('mpi4py.MPI' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
