import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.pipeline.process_group import (
    join_process_group,
    master_address,
    master_port,
    open_store,
)
from hpc_lpm.errors import InputError
from hpc_lpm.interfaces import LOOPBACK


@pytest.fixture
def first_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for scontrol, which names the node written into the file that is returned."""
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\ncat "{tmp_path}/nodes"\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "nodes"


def test_on_one_host_ranks_meet_without_any_name() -> None:
    assert master_address(1, {"SLURM_JOB_NODELIST": "n1"}) == LOOPBACK


def test_ranks_meet_at_the_first_node_of_the_list(first_node: Path) -> None:
    own = socket.gethostname().partition(".")[0]
    first_node.write_text(f"{own}.cluster\nother.cluster\n")
    assert master_address(2, {"SLURM_JOB_NODELIST": "list"}) == f"{own}.cluster"


@pytest.mark.parametrize("nodes", ["other\n", ""])
def test_a_list_that_does_not_lead_here_is_not_followed(first_node: Path, nodes: str) -> None:
    first_node.write_text(nodes)
    assert master_address(2, {"SLURM_JOB_NODELIST": "list"}) == socket.gethostname()
    assert master_address(2, {}) == socket.gethostname()


def test_the_port_comes_from_the_jobs_number() -> None:
    ports = {master_port({"SLURM_JOB_ID": str(job)}) for job in range(5_000_000, 5_001_000)}
    assert len(ports) == 1000
    assert all(1024 < port < 32768 for port in ports)
    assert master_port({}) == 0


def test_a_port_that_is_taken_is_left_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    limit = timedelta(seconds=20)
    first = open_store(LOOPBACK, limit)
    second = open_store(LOOPBACK, limit)
    assert first.port == master_port({"SLURM_JOB_ID": "4711"})
    assert second.port not in (0, first.port)


def test_a_group_of_the_users_own_that_cannot_carry_what_stages_exchange_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")  # joining sets them
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("cpu:gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(InputError, match=r"gloo, .* no tensors on cuda: call init_"):
            join_process_group(SingleProcess(), torch.device("cuda", 0))
    finally:
        torch.distributed.destroy_process_group()
