"""Makes a switch, and for every node a network namespace with a cable of limited rate to it."""

import json
import re
from pathlib import Path

from lpm_testbed.commands import attempt, run
from lpm_testbed.errors import TestbedError
from lpm_testbed.layout import Layout, Node

CABLE = "eth0"
"""The node's end of its cable."""

_RATE = re.compile(r"\d+(\.\d+)?[kmg]?bit")
# The burst takes about 2 ms at 1 Gbit/s; the queue is long enough for TCP to find the rate.
_BURST, _QUEUE = "256kb", "50ms"


def check_rate(rate: str) -> None:
    """Check the rate of a link.

    Raises:
        TestbedError: if tc would not accept the rate.
    """
    if not _RATE.fullmatch(rate):
        raise TestbedError(
            f"--rate {rate!r} is not accepted: write it like 1gbit, 200mbit or 500kbit."
        )


def build_network(layout: Layout) -> None:
    """Make the switch and the namespaces.

    Raises:
        TestbedError: if the subnet is taken or the kernel refuses.
    """
    _check_subnet_free(layout)
    _run_ip("link", "add", layout.bridge, "type", "bridge")
    _run_ip("address", "add", f"{layout.bridge_address}/24", "dev", layout.bridge)
    _run_ip("link", "set", layout.bridge, "up")
    for node in layout.nodes():
        _plug_in(node, layout.bridge)


def _plug_in(node: Node, bridge: str) -> None:
    inside = ("-n", node.namespace)
    _run_ip("netns", "add", node.namespace)
    _run_ip(
        *("link", "add", node.interface, "type", "veth"),
        *("peer", "name", CABLE, "netns", node.namespace),
    )
    _run_ip("link", "set", node.interface, "master", bridge, "up")
    _run_ip(*inside, "address", "add", f"{node.address}/24", "dev", CABLE)
    _run_ip(*inside, "link", "set", CABLE, "up")
    _run_ip(*inside, "link", "set", "lo", "up")
    if node.rate:
        # Traffic out of the node is limited at its end of the cable, traffic into it at the other.
        for where, device in ((inside, CABLE), ((), node.interface)):
            limit = ["tbf", "rate", node.rate, "burst", _BURST, "latency", _QUEUE]
            run(["tc", *where, "qdisc", "add", "dev", device, "root", *limit])


def remove_network(layout: Layout) -> None:
    """Remove what `build_network` made, as far as it exists."""
    for node in layout.nodes():
        attempt(["ip", "link", "delete", node.interface])
        attempt(["ip", "netns", "delete", node.namespace])
    attempt(["ip", "link", "delete", layout.bridge])


def namespaces_of(name: str) -> list[str]:
    """Return the namespaces that a cluster of that name has left on this machine."""
    folder = Path("/run/netns")
    prefix = f"lpm-{name}-"
    if not folder.is_dir():
        return []
    found = (path.name for path in folder.iterdir() if path.name.startswith(prefix))
    return sorted(name for name in found if "-" not in name.removeprefix(prefix))


def processes_in(namespace: str) -> list[int]:
    """Return the numbers of the processes that run in a namespace."""
    return [int(pid) for pid in (attempt(["ip", "netns", "pids", namespace]) or "").split()]


def _check_subnet_free(layout: Layout) -> None:
    subnet = layout.bridge_address.rpartition(".")[0] + "."
    for link in json.loads(_run_ip("-json", "-4", "address", "show")):
        for address in link.get("addr_info", ()):
            if address["local"].startswith(subnet):
                raise TestbedError(
                    f"the network {subnet}0/24 is taken by {link['ifname']}: use another --name, "
                    "which has another network."
                )


def _run_ip(*arguments: str) -> str:
    return run(["ip", *arguments])
