"""Which interface joins a node to the others, and whose word counts about it."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from hpc_lpm import interfaces
from hpc_lpm.interfaces import (
    Interface,
    choose_interface,
    interface_of_job,
    own_interface,
    without_network,
)
from hpc_lpm.ranks import spans_nodes

INCLUDE = "OMPI_MCA_btl_tcp_if_include"
Node = Callable[..., None]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    """Make this machine look like a node with these interfaces and names."""

    def look_like(addresses: dict[str, str], names: dict[str, list[str]], host: str) -> None:
        found = {
            name: [SimpleNamespace(family=socket.AF_INET, address=address, netmask="255.255.0.0")]
            for name, address in addresses.items()
        }

        def resolve(name: str, *_: object) -> list[tuple[object, ...]]:
            if name not in names:
                raise socket.gaierror(-2, "Name or service not known")
            return [(socket.AF_INET, 1, 6, "", (address, 0)) for address in names[name]]

        monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        monkeypatch.setattr(interfaces, "_PARAMETER_FILES", (tmp_path / "params.conf",))

    return look_like


ADDRESSES = {"lo": "127.0.0.1", "docker0": "172.17.0.1", "eth0": "10.1.0.7", "ib0": "10.2.0.7"}
ETHERNET = Interface("eth0", "10.1.0.7", "10.1.0.0/16")
INFINIBAND = Interface("ib0", "10.2.0.7", "10.2.0.0/16")


def test_it_is_the_one_with_the_address_of_the_nodes_name(node: Node) -> None:
    node(ADDRESSES, {"n7": ["10.1.0.7"], "n7-ib": ["10.2.0.7"]}, "n7")
    assert own_interface({}) == ETHERNET
    # Slurm's name for the node goes before that of the host.
    assert own_interface({"SLURMD_NODENAME": "n7-ib"}) == INFINIBAND
    assert own_interface({"SLURMD_NODENAME": "elsewhere"}) == ETHERNET


def test_a_name_that_leads_to_loopback_or_nowhere_chooses_nothing(node: Node) -> None:
    for names in ({"n7": ["127.0.1.1", "127.0.0.1"]}, {"n7": ["10.9.9.9"]}, {}):
        node(ADDRESSES, names, "n7")
        environment: dict[str, str] = {}
        choose_interface(environment)
        assert (own_interface({}), environment) == (None, {})
    node(ADDRESSES, {"n7": ["127.0.1.1", "10.2.0.7"]}, "n7")
    assert own_interface({}) == INFINIBAND


def test_the_word_of_the_user_or_the_site_counts(node: Node, tmp_path: Path) -> None:
    node(ADDRESSES, {"n7": ["10.1.0.7"]}, "n7")
    environment: dict[str, str] = {}
    choose_interface(environment)
    assert environment == {INCLUDE: "10.1.0.0/16"}
    for name in (INCLUDE, "OMPI_MCA_btl_tcp_if_exclude"):
        environment = {name: "ib0"}
        choose_interface(environment)
        assert environment == {name: "ib0"}
    (tmp_path / "params.conf").write_text("# ours\nbtl_tcp_if_include = ib0\n")
    environment = {}
    choose_interface(environment)
    assert environment == {}


def test_the_interface_of_a_job_is_the_one_named_for_gloo_else_that_of_the_nodes_name(
    node: Node,
) -> None:
    node(ADDRESSES, {"n7": ["10.1.0.7"]}, "n7")
    assert interface_of_job({}) == ETHERNET
    assert interface_of_job({"GLOO_SOCKET_IFNAME": "ib0,eth0"}) == INFINIBAND
    for elsewhere in ("lo", "ib1"):  # which reaches nobody, or is not there
        assert interface_of_job({"GLOO_SOCKET_IFNAME": elsewhere}) == ETHERNET
    node(ADDRESSES, {}, "n7")
    assert interface_of_job({}) is None


def test_ranks_of_one_node_do_without_tcp_unless_somebody_has_chosen_or_memory_is_short(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(ranks: int, **environment: str) -> str | None:
        before = dict(environment)
        with without_network(ranks, environment):
            found = environment.get("OMPI_MCA_btl")
        assert environment == before
        return found

    node(ADDRESSES, {}, "n7")
    memory = SimpleNamespace(f_bavail=2**20, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: memory)
    assert chosen(2) == "^tcp"
    assert chosen(1) is None
    assert chosen(2, OMPI_MCA_btl="self,tcp") == "self,tcp"
    assert chosen(2, **{INCLUDE: "ib0"}) is None
    assert chosen(2, APPTAINER_CONTAINER="/image") is None
    memory.f_bavail = 1000
    assert chosen(2) is None
    memory.f_bavail = 2**20
    (tmp_path / "params.conf").write_text("btl = self,tcp\n")
    assert chosen(2) is None


@pytest.mark.parametrize(
    ("environment", "spans"),
    [
        ({}, False),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, True),
        ({"SLURM_STEP_NUM_NODES": "1"}, False),
        ({"SLURM_STEP_NUM_NODES": "2"}, True),
        # mpirun on one node of a step that srun has started on two.
        (
            {
                "SLURM_STEP_NUM_NODES": "2",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            },
            False,
        ),
    ],
)
def test_ranks_on_several_nodes_are_told_from_those_on_one(
    environment: dict[str, str], spans: bool
) -> None:
    assert spans_nodes(environment) is spans
