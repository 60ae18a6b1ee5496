import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.testbed import Shell, cluster, taken_down_at_last, unused_name, variables


@pytest.fixture(scope="session")
def cluster_name() -> Iterator[str]:
    """The cluster that all tests share: two nodes of one core, links of 1 Gbit/s.

    A test that sets a node down or the like brings it up again; one that would end the cluster
    makes one of its own.
    """
    name = unused_name("tests")
    with taken_down_at_last(name):
        done = cluster("up", "--nodes", "2", "--cores-per-node", "1", "--rate", "1gbit", name=name)
        if done.returncode == 2 and not os.environ.get("CI"):
            pytest.skip(f"no Slurm cluster on this machine: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        yield name


@pytest.fixture(scope="session")
def running_cluster(cluster_name: str) -> dict[str, str]:
    """The variables of a shell that talks to the cluster."""
    return variables(cluster_name)


@pytest.fixture
def shell(running_cluster: dict[str, str], tmp_path: Path) -> Iterator[Shell]:
    """A shell in a folder of its own, whose name has a space; its jobs end with the test."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    shell = Shell(running_cluster, folder)
    yield shell
    shell.end_jobs()
