"""Profiles in the format of PipeDream's profiler, `graph.txt`, as chains of layers.

PipeDream's public repository (Narayanan et al., SOSP 2019) writes it in `graph/graph.py` and
`profiler/torchmodules/torchgraph`. Each node has one line and each edge one indented line:

    node2 -- Conv2d(3, 64, ...) -- forward_compute_time=22.307, backward_compute_time=24.613,
        activation_size=1644167168.000, parameter_size=7168.000      (all in one line)
    <TAB>node1 -- node2

Times are milliseconds for one batch; sizes are bytes of float32 numbers, those of activations for
the whole batch. A node with several outputs lists their sizes as `[1.0; 2.0]`. Nodes that an
optimizer has already placed end with ` -- stage_id=0`, which is ignored here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NoReturn

from hpc_lpm.errors import InputError
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile
from hpc_lpm.profile_formats.linearise import (
    CycleError,
    articulation_nodes,
    blocks_between,
    topological_order,
)

ASSUMED_LINK = LinkProfile(latency_seconds=5e-6, bandwidth_bytes_per_second=12.5e9)
"""The link assumed for these files, which describe none: an interconnect of 100 Gbit/s."""

BATCH_ASSUMPTION = (
    "the profiled batch counts as one micro-batch of one sample: the file does not tell its size"
)

_LARGEST = 1e18
"""Most milliseconds or bytes accepted for a node: sums of larger values could overflow."""

_SEPARATOR = " -- "
_NODE_FORM = (
    "NAME -- DESCRIPTION -- forward_compute_time=MS, backward_compute_time=MS, "
    "activation_size=BYTES, parameter_size=BYTES"
)
_EDGE_FORM = "<TAB>NAME -- NAME"


@dataclass(frozen=True)
class _Node:
    """One node of the file; times in milliseconds, sizes in bytes, all exact."""

    name: str
    description: str
    forward: Fraction
    backward: Fraction
    activations: Fraction
    parameters: Fraction
    line: int

    @property
    def is_input(self) -> bool:
        return re.fullmatch(r"Input\d*", self.description) is not None

    @property
    def is_item(self) -> bool:
        return self.description.startswith("__getitem__")

    @property
    def operation(self) -> str:
        return self.description.partition("(")[0].strip()


@dataclass(frozen=True)
class _Edge:
    source: int
    target: int
    line: int


def parse_pipedream_graph(text: str, *, model: str, where: str) -> Profile:
    """Return the graph as a profile of the chain of its blocks; `where` names the file in errors.

    A block consists of the nodes between two nodes that every path from the sources to the sinks
    crosses, together with the second of the two. Its times, parameters and activations are the sums
    over its nodes. Its output is the output of that second node or, after the last such node, of
    every sink. Times are rounded once, from the exact sum. As in PipeDream's optimizer, `Input`
    nodes cost nothing, because their time is spent loading data, and items of a tuple
    (`__getitem__`) that no node reads do not count. An input is never a block of its own.

    The link is `ASSUMED_LINK`, and a micro-batch is one sample (`BATCH_ASSUMPTION`).

    Raises:
        InputError: if a line is not understood, a node is described twice or not at all, a number
            is missing, negative or not finite, or the graph has a cycle; it names the line.
    """
    nodes, edges = _parse(text, where)
    nodes, edges = _without_unread_items(nodes, edges)
    successors: list[list[int]] = [[] for _ in nodes]
    for edge in edges:
        successors[edge.source].append(edge.target)
    try:
        order = topological_order(successors)
    except CycleError as error:
        _refuse_cycle(error.nodes, nodes, edges, where)
    closing = [node for node in articulation_nodes(successors, order) if not nodes[node].is_input]
    return Profile(
        model=model,
        micro_batch=1,
        device="unknown",
        dtype="float32",
        layers=tuple(
            _layer([nodes[node] for node in block], _outputs(block, nodes, successors))
            for block in blocks_between(order, closing)
        ),
        link=ASSUMED_LINK,
        environment={
            "source": "PipeDream's graph.txt",
            "nodes": len(nodes),
            "link": "assumed",
            "assumptions": [BATCH_ASSUMPTION],
        },
    )


def _layer(members: list[_Node], output_bytes: Fraction) -> LayerProfile:
    costly = [node for node in members if not node.is_input]
    return LayerProfile(
        name=_block_name(costly or members),
        forward_seconds=float(sum((node.forward for node in costly), Fraction(0)) / 1000),
        backward_seconds=float(sum((node.backward for node in costly), Fraction(0)) / 1000),
        output_bytes=ceil(output_bytes),
        parameter_bytes=ceil(sum(node.parameters for node in costly)),
        activation_bytes=ceil(sum(node.activations for node in costly)),
    )


def _block_name(members: list[_Node]) -> str:
    first, last = members[0], members[-1]
    names = first.name if first is last else f"{first.name}..{last.name}"
    return f"{names} {last.operation}".rstrip()


def _outputs(
    block: Sequence[int], nodes: Sequence[_Node], successors: Sequence[Sequence[int]]
) -> Fraction:
    """Return the bytes that leave the block: outputs of its nodes that a later block reads."""
    members = set(block)
    leaving = (
        node
        for node in block
        if not nodes[node].is_input and not members.issuperset(successors[node] or [-1])
    )
    return sum((nodes[node].activations for node in leaving), Fraction(0))


def _without_unread_items(
    nodes: list[_Node], edges: list[_Edge]
) -> tuple[list[_Node], list[_Edge]]:
    """Leave out items of tuples that no node reads: as sinks they would prevent cuts."""
    read = {edge.source for edge in edges}
    taken_from = {edge.target for edge in edges}
    kept = [
        number
        for number, node in enumerate(nodes)
        if not node.is_item or number in read or number not in taken_from
    ]
    renumbered = {old: new for new, old in enumerate(kept)}
    return [nodes[old] for old in kept], [
        _Edge(renumbered[edge.source], renumbered[edge.target], edge.line)
        for edge in edges
        if edge.target in renumbered
    ]


def _parse(text: str, where: str) -> tuple[list[_Node], list[_Edge]]:
    numbers: dict[str, int] = {}
    nodes: list[_Node] = []
    named_edges: list[tuple[str, str, int]] = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        place = f"profile {where}, line {line}"
        parts = [part.strip() for part in content.strip().split(_SEPARATOR)]
        if content[0].isspace():
            if len(parts) != 2:
                raise InputError(
                    f"{place}: found {_shortened(content)}, accepted is {_EDGE_FORM} on an "
                    "indented line."
                )
            named_edges.append((parts[0], parts[1], line))
            continue
        node = _node(parts, line, place)
        if node.name in numbers:
            raise InputError(
                f"{place}: {node.name} is described again after line "
                f"{nodes[numbers[node.name]].line}, give each node a name of its own."
            )
        numbers[node.name] = len(nodes)
        nodes.append(node)
    for source, target, line in named_edges:
        for name in (source, target):
            if name not in numbers:
                raise InputError(
                    f"profile {where}, line {line}: the edge from {source} to {target} needs a "
                    f"node {name}, which no line describes: add one or remove the edge."
                )
    if not nodes:
        raise InputError(
            f"profile {where} has no node: accepted are the JSON that `hpc-lpm profile` writes and "
            f"PipeDream's graph.txt with lines {_NODE_FORM}."
        )
    return nodes, [_Edge(numbers[a], numbers[b], line) for a, b, line in named_edges]


def _node(parts: list[str], line: int, place: str) -> _Node:
    if len(parts) < 3 or not parts[0]:
        raise InputError(
            f"{place}: found {_shortened(_SEPARATOR.join(parts))}, accepted are "
            f"{_NODE_FORM}, or {_EDGE_FORM} for an edge, or a profile in JSON."
        )
    fields: dict[str, str] = {}
    for part in ", ".join(parts[2:]).split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name in fields:
            raise InputError(
                f"{place}: {parts[0]} has {_shortened(part.strip())} where one value for each "
                f"field is accepted, as in {_NODE_FORM}."
            )
        fields[name] = value.strip()

    def number(field: str) -> Fraction:
        if field not in fields:
            raise InputError(f"{place}: {parts[0]} has no {field}, accepted is {_NODE_FORM}.")
        try:
            return _exact_sum(fields[field])
        except ValueError:
            raise InputError(
                f"{place}: {field} of {parts[0]} is {_shortened(fields[field])}, accepted is a "
                f"number from 0 to {_LARGEST:g}, or several as in [1.0; 2.0]."
            ) from None

    return _Node(
        name=parts[0],
        description=parts[1],
        forward=number("forward_compute_time"),
        backward=number("backward_compute_time"),
        activations=number("activation_size"),
        parameters=number("parameter_size"),
        line=line,
    )


def _exact_sum(text: str) -> Fraction:
    """Return the exact value of a decimal number, or of the sum of several in brackets."""
    listed = text.startswith("[") and text.endswith("]")
    return sum(
        (_exact(part.strip()) for part in (text[1:-1].split(";") if listed else [text])),
        Fraction(0),
    )


def _exact(text: str) -> Fraction:
    value = float(text)
    if not 0 <= value <= _LARGEST:
        raise ValueError
    # What a double rounds to zero is taken as zero: its exact value could have a billion digits.
    return Fraction(text) if value else Fraction(0)


def _refuse_cycle(
    cycle: Sequence[int], nodes: Sequence[_Node], edges: Sequence[_Edge], where: str
) -> NoReturn:
    source, target = cycle[-1], cycle[0]
    line = next(e.line for e in edges if (e.source, e.target) == (source, target))
    raise InputError(
        f"profile {where}, line {line}: the edge from {nodes[source].name} to "
        f"{nodes[target].name} closes a cycle of {len(cycle)} nodes, accepted are graphs without "
        "one: remove the edge that leads back."
    )


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
