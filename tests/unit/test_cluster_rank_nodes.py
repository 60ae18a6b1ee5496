import os
from pathlib import Path

import pytest

from hpc_lpm.cluster import rank_nodes
from hpc_lpm.cluster.launchers import rank_environment
from hpc_lpm.cluster.machine import describe_machine
from hpc_lpm.cluster.rank_nodes import find_rank_nodes


def test_without_a_scheduler_ranks_are_on_this_node() -> None:
    found = find_rank_nodes(2, "mpirun", None, {})
    assert found.job_id is None
    assert found.nodes == (describe_machine().host,)
    assert found.machines == (describe_machine(),)


@pytest.mark.mpi
def test_nodes_are_asked_through_the_launcher_where_it_may_leave_this_one(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    surroundings = rank_environment(os.environ, threads=1)
    found = find_rank_nodes(2, "mpirun", ["--hostfile", str(hosts)], surroundings)
    assert found.nodes == (describe_machine().host,)


def test_nodes_that_do_not_answer_still_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_nodes, "host_names", lambda node_list: ["n1", "n2"])
    job = {"SLURM_JOB_ID": "0", "SLURM_JOB_NODELIST": "n[1-2]", "PATH": str(tmp_path)}
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_rank_nodes(2, "srun", None, job)
    assert found.nodes == ("n1", "n2")
    assert [machine.host for machine in found.machines] == [describe_machine().host]
