"""Shows the links between nodes as tables."""

from typing import TYPE_CHECKING

from hpc_lpm.cli.output import print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc_lpm.doctor.probe_report import LinkOfNodes

MOST_NODES = 16
"""The matrix of more nodes would not fit on a screen."""

_WORST = 10


def show_links(links: "tuple[LinkOfNodes, ...]") -> None:
    """Print the latency and bandwidth between all nodes, or of the worst pairs of many nodes."""
    nodes = list(dict.fromkeys(node for link in links for node in link.nodes))
    if len(nodes) < 2:
        return
    if len(nodes) > MOST_NODES:
        _show_worst([link for link in links if link.nodes[0] != link.nodes[1]])
        return
    # Columns are headed by numbers, since sixteen names would not fit.
    names = {node: f"{number} {node}" for number, node in enumerate(nodes, start=1)}
    for title, cell in (("latency in us", _latency), ("bandwidth in GB/s", _bandwidth)):
        cells = {frozenset(link.nodes): cell(link) for link in links}
        rows = [
            [names[row], *(cells.get(frozenset((row, column)), "") for column in nodes)]
            for row in nodes
        ]
        print_table(title, ["node", *(str(n + 1) for n in range(len(nodes)))], rows)


def _show_worst(links: "list[LinkOfNodes]") -> None:
    orders: list[tuple[str, Callable[[LinkOfNodes], float]]] = [
        ("highest latency", lambda link: -(link.latency_seconds or float("inf"))),
        ("lowest bandwidth", lambda link: link.bandwidth_bytes_per_second or 0.0),
    ]
    for title, key in orders:
        worst = sorted(links, key=key)[:_WORST]
        print_table(
            f"{title}, {len(worst)} of {len(links)} pairs",
            ["nodes", "latency in us", "bandwidth in GB/s"],
            [[" - ".join(link.nodes), _latency(link), _bandwidth(link)] for link in worst],
        )


def _latency(link: "LinkOfNodes") -> str:
    return "none" if link.latency_seconds is None else f"{link.latency_seconds * 1e6:.1f}"


def _bandwidth(link: "LinkOfNodes") -> str:
    bandwidth = link.bandwidth_bytes_per_second
    return "none" if bandwidth is None else f"{bandwidth / 1e9:.3g}"
