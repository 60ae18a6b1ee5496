"""Which nodes of a job are down, and how ranks are kept to the others."""

import os
from pathlib import Path

import pytest

from hpc_lpm.cluster.launchers import options_on_nodes, rank_command
from hpc_lpm.cluster.lost_nodes import nodes_down, places_left

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TASKS_PER_NODE": "2(x2),1"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for a cluster whose file `states` has a line for each node."""
    (tmp_path / "sinfo").write_text(f"#!/bin/sh\ncat '{tmp_path}/states'\n")
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'n1\\nn2\\nn3\\n'\n")
    for name in ("sinfo", "scontrol"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "states"


@pytest.mark.parametrize(
    ("state", "is_down"),
    [
        ("allocated", False),
        ("mixed", False),
        ("draining", False),
        ("idle", False),
        ("down", True),
        ("down*", True),
        ("allocated*", True),
        ("failing", True),
        ("unknown*", True),
        ("rebooting", True),
    ],
)
def test_a_node_is_down_by_its_state(state: str, is_down: bool, slurm: Path) -> None:
    slurm.write_text(f"n1 allocated\nn2 {state}\n")
    assert nodes_down(["n1", "n2"]) == (["n2"] if is_down else [])


def test_the_places_of_a_job_are_those_on_nodes_that_are_up(slurm: Path) -> None:
    slurm.write_text("n1 allocated\nn2 down*\nn3 allocated\n")
    assert places_left(JOB) == {"n1": 2, "n3": 1}
    slurm.write_text("n1 allocated\nn2 allocated\nn3 allocated\n")
    assert places_left(JOB) is None
    assert places_left({}) is None


def test_without_an_answer_no_node_is_down(slurm: Path) -> None:
    (slurm.parent / "sinfo").write_text("#!/bin/sh\nexit 1\n")
    assert places_left(JOB) is None


def test_launchers_are_told_which_nodes_to_use() -> None:
    places = {"n1": 2, "n3": 1}
    options = options_on_nodes("mpirun", places)
    assert options == ("--host", "n1:2,n3:1")
    assert "n1:2,n3:1" in rank_command(["models"], 3, "mpirun", options, environment={})
    assert options_on_nodes("srun", places) == ("--nodes=2", "--nodelist=n1,n3")
