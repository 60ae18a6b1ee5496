"""The doctor on real nodes: it sees all of a job, however started, and nodes that take none."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.slurm.testbed import REPOSITORY, Shell

pytestmark = pytest.mark.slurm

DOCTOR = [sys.executable, "-m", "hpc_lpm", "doctor", "--json"]
JOB = ["--nodes=2", "--ntasks=2", "--time=8"]
BURST_BYTES = 256 * 2**10
"""That of tc in slurm/testbed."""


@pytest.fixture(autouse=True)
def own_package(shell: Shell) -> None:
    """Have commands use the package of this checkout, whatever is installed."""
    shell.environment["PYTHONPATH"] = str(REPOSITORY)


def examined(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert "{" in done.stdout, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return document


def found(document: dict[str, Any], name: str) -> tuple[str, str]:
    check = next(one for one in document["checks"] if one["name"] == name)
    return check["verdict"], check["found"]


@pytest.mark.parametrize(
    "start",
    [
        ["salloc", *JOB],
        ["salloc", *JOB, "srun", "--overlap", "--nodes=1", "--ntasks=1"],
        ["srun", *JOB, "--mpi=pmix", "--distribution=block"],
    ],
    ids=["plain in a job", "a step of one process", "as ranks of srun"],
)
def test_the_nodes_of_a_job_and_their_link_are_examined(shell: Shell, start: list[str]) -> None:
    done = shell.run(*start, *DOCTOR, seconds=240)
    document = examined(done)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks in 2 processes on 2 hosts" in found(document, "ranks")[1]
    assert found(document, "placement") == ("ok", "n1: rank 0; n2: rank 1")
    (link,) = document["links"]
    assert link["nodes"] == ["n1", "n2"]
    # A link of 1 Gbit/s, which lets a burst through at once. How much slower it seems is a matter
    # of what else the machine does.
    size, bandwidth = link["message_bytes"], link["bandwidth_bytes_per_second"]
    seconds = size / bandwidth + 2 * link["latency_seconds"]
    assert seconds > (size - BURST_BYTES) / 0.125e9
    assert bandwidth > 0.005e9
    assert "2 nodes write" in found(document, "shared files")[1]
    assert "on all 2 nodes" in found(document, "environment")[1]
    assert "starts our ranks (tried)" in found(document, "mpi plugin")[1]


def test_a_drained_node_is_listed_with_its_reason(shell: Shell) -> None:
    shell.output("scontrol", "update", "nodename=n2", "state=drain", "reason=disk is full")
    try:
        document = examined(shell.run(*DOCTOR, seconds=240))
    finally:
        shell.output("scontrol", "update", "nodename=n2", "state=resume")
    verdict, text = found(document, "slurm")
    assert verdict == "warning"
    assert "n2 drained (disk is full)" in text
