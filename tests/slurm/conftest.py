import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.testbed import Shell, cluster, variables


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[dict[str, str]]:
    """Two nodes of one core, links of 1 Gbit/s; the variables of a shell that talks to them."""
    done = cluster("up", "--nodes", "2", "--cores-per-node", "1", "--rate", "1gbit")
    if done.returncode == 2 and not os.environ.get("CI"):
        pytest.skip(f"no Slurm cluster on this machine: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    try:
        yield variables()
    finally:
        cluster("down")


@pytest.fixture
def shell(running_cluster: dict[str, str], tmp_path: Path) -> Shell:
    """A shell in a folder of its own, whose name has a space."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Shell(running_cluster, folder)
