"""The names, addresses, cores and files of a cluster, all derived from its options."""

import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lpm_testbed.errors import TestbedError

RUNNING = Path("/run/hpc-lpm-testbed")
"""The folder that holds a folder for each cluster that is up."""

HEAD = "head"
"""The node on which drivers run: it trains nothing, and its link has no limit."""

_LONGEST_NAME = 20
_NETWORKS = 250


@dataclass(frozen=True)
class Options:
    """The options of a cluster; `rate` limits each compute node's link and is written as for tc."""

    name: str = "testbed"
    nodes: int = 2
    cores_per_node: int = 1
    rate: str = "1gbit"


@dataclass(frozen=True)
class Node:
    """One node: `interface` is the host's end of its cable, and `rate` is None without a limit."""

    name: str
    address: str
    cores: tuple[int, ...]
    memory_megabytes: int
    namespace: str
    interface: str
    rate: str | None


@dataclass(frozen=True)
class Layout:
    """The parts of a cluster with certain options.

    `network` numbers its subnet, its ports and its interfaces, so that clusters of different names
    can be up at the same time.
    """

    options: Options
    network: int
    host_cores: tuple[int, ...]
    host_memory_megabytes: int

    @property
    def folder(self) -> Path:
        """The folder of configuration, keys, logs, process numbers and spools."""
        return RUNNING / self.options.name

    @property
    def configuration(self) -> Path:
        """The path of slurm.conf."""
        return self.folder / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """The socket on which this cluster's munged listens."""
        return self.folder / "munge" / "munge.socket"

    @property
    def bridge(self) -> str:
        """The switch that all nodes are plugged into."""
        return f"lpm{self.network}"

    @property
    def bridge_address(self) -> str:
        """The host's address on the switch."""
        return f"10.213.{self.network}.254"

    @property
    def control_port(self) -> int:
        """The port of slurmctld; the slurmds listen on the next one."""
        return 16800 + 2 * self.network

    @property
    def head(self) -> Node:
        """The node that drivers of campaigns run on."""
        return self._node(HEAD, 253, self.host_cores, self.host_memory_megabytes // 4, None)

    @property
    def compute_nodes(self) -> list[Node]:
        """The nodes that train, n1 first; they share cores if there are not enough of them."""
        options = self.options
        memory = self.host_memory_megabytes // options.nodes
        return [
            self._node(
                f"n{number}",
                number,
                self._cores_of(number),
                memory,
                options.rate,
            )
            for number in range(1, options.nodes + 1)
        ]

    def nodes(self) -> Iterator[Node]:
        """Yield the head and the compute nodes."""
        yield self.head
        yield from self.compute_nodes

    def shares_cores(self) -> bool:
        """Tell if nodes have cores in common."""
        return self.options.nodes * self.options.cores_per_node > len(self.host_cores)

    def write(self) -> None:
        """Write the layout to the cluster's folder."""
        document = json.dumps(asdict(self), indent=2)
        (self.folder / "layout.json").write_text(document + "\n", encoding="utf-8")

    def _cores_of(self, number: int) -> tuple[int, ...]:
        count, available = self.options.cores_per_node, self.host_cores
        numbers = range((number - 1) * count, number * count)
        return tuple(sorted({available[core % len(available)] for core in numbers}))

    def _node(
        self, name: str, number: int, cores: tuple[int, ...], memory: int, rate: str | None
    ) -> Node:
        return Node(
            name=name,
            address=f"10.213.{self.network}.{number}",
            cores=cores,
            memory_megabytes=memory,
            namespace=f"lpm-{self.options.name}-{name}",
            interface=f"lpm{self.network}-{name}",
            rate=rate,
        )


def plan_layout(options: Options) -> Layout:
    """Return the layout of a cluster on this machine.

    Raises:
        TestbedError: if an option is not accepted.
    """
    name = options.name
    if not name.replace("-", "").isalnum() or not name.isascii() or len(name) > _LONGEST_NAME:
        raise TestbedError(
            f"--name {name!r} is not accepted: use up to {_LONGEST_NAME} letters, digits, dashes."
        )
    if not 1 <= options.nodes <= 200:
        raise TestbedError(f"--nodes {options.nodes} is not accepted: use 1 to 200.")
    cores = tuple(sorted(os.sched_getaffinity(0)))
    if not 1 <= options.cores_per_node <= len(cores):
        raise TestbedError(
            f"--cores-per-node {options.cores_per_node} is not accepted: this machine has "
            f"{len(cores)} cores for each node."
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    # The rest of the memory is left to the system.
    return Layout(options, zlib.crc32(name.encode()) % _NETWORKS, cores, memory * 9 // 10)


def read_layout(name: str) -> Layout | None:
    """Return the layout of the cluster that was brought up under a name, None if there is none."""
    path = RUNNING / name / "layout.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Layout(
            Options(**document["options"]),
            document["network"],
            tuple(document["host_cores"]),
            document["host_memory_megabytes"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
