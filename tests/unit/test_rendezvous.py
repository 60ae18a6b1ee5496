import os
import socket
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch
from set_clock import SetClock
from torch._C._distributed_c10d import TCPStore

from hpc_lpm.engine import torch_job
from hpc_lpm.engine.collectives import making_process_groups
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.pipeline import process_group
from hpc_lpm.engine.pipeline.process_group import (
    join_process_group,
    master_address,
    master_port,
    open_store,
)
from hpc_lpm.engine.torch_job import _address_behind
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.interfaces import LOOPBACK, Interface, require_named_for_gloo


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
    limit = timedelta(minutes=2)
    for number in range(4711, 4811):  # others may have some of the ports
        monkeypatch.setenv("SLURM_JOB_ID", str(number))
        first = open_store(LOOPBACK, limit)
        if first.port == master_port({"SLURM_JOB_ID": str(number)}):
            break
    assert first.port == master_port({"SLURM_JOB_ID": str(number)})
    second = open_store(LOOPBACK, limit)
    assert second.port not in (0, first.port)


def listens_at(port: int) -> set[str]:
    """Return the addresses at which this process listens at a port.

    Another process may listen at the same port of another address.
    """
    ends = psutil.Process().net_connections("tcp")
    return {
        end.laddr.ip for end in ends if end.status == psutil.CONN_LISTEN and end.laddr.port == port
    }


@pytest.mark.parametrize("known", [True, False])
def test_the_store_listens_on_the_interface_of_the_job_alone(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    limit = timedelta(minutes=2)
    assert listens_at(open_store(LOOPBACK, limit).port) == {LOOPBACK}
    # Another address of the loopback stands for an interface that joins nodes.
    found = Interface("eth0", "127.0.0.7", "127.0.0.0/8") if known else None
    monkeypatch.setattr(process_group, "interface_of_job", lambda: found)
    store = open_store("localhost", limit)
    if known:
        assert (listens_at(store.port), store.host) == ({"127.0.0.7"}, "127.0.0.7")
    else:
        assert store.host == "localhost"
        assert listens_at(store.port) <= {"0.0.0.0", "::"}
    other = TCPStore(store.host, store.port, is_master=False, timeout=limit)
    other.set("key", "value")
    assert store.get("key") == b"value"


def test_ranks_of_plain_srun_meet_on_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _address_behind(LOOPBACK) == LOOPBACK
    found = Interface("eth0", "127.0.0.7", "127.0.0.0/8")
    monkeypatch.setattr(torch_job, "interface_of_job", lambda: found)
    assert _address_behind("127.0.0.7") == "127.0.0.7"
    # Where the others are led elsewhere, or nobody knows where, it is at any address.
    assert _address_behind("127.0.0.8") is None
    assert _address_behind("no host has this name") is None


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


def test_an_interface_that_the_host_lacks_is_named_before_ranks_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo,nosuch0")
    monkeypatch.setattr(process_group, "_export_rank", lambda *_: None)
    said = (
        rf"^GLOO_SOCKET_IFNAME names 'nosuch0', but {socket.gethostname()} has no .*\(it has .*lo"
    )
    with pytest.raises(InputError, match=said) as refused:
        join_process_group(SingleProcess(), torch.device("cpu"))
    assert "interface in slurm/site.yaml" in str(refused.value)
    for held in ("lo", ""):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", held)
        require_named_for_gloo()


@pytest.mark.parametrize(("limit_seconds", "passed"), [(0.01, True), (600.0, False)])
def test_a_group_that_is_not_made_is_told_with_what_has_happened(
    limit_seconds: float, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SetClock()
    monkeypatch.setattr("hpc_lpm.engine.collectives.time", clock)
    job = SingleProcess()
    job.limit_seconds = limit_seconds
    with (
        pytest.raises(TrainingError) as failed,
        making_process_groups(job),
    ):
        clock.sleep(0.02)
        raise RuntimeError("[gloo/pair.cc:9] Connection refused\nfrom a frame")
    sentence = str(failed.value)
    assert "rank 0: the ranks cannot form a process group " in sentence
    assert ("within 0.01 s" in sentence) == passed
    assert ("--receive-timeout" in sentence) == passed
    assert ("([gloo/pair.cc:9] Connection refused, after 0.0 s): " in sentence) != passed
    assert "\n" not in sentence
