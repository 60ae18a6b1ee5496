"""A directed acyclic graph as a chain of blocks, cut at nodes that every path crosses.

Nodes are the numbers 0 to n - 1 and `successors[u]` lists where the edges of u lead; an edge may
occur more than once. All functions are linear in nodes and edges, and none recurses.
"""

from collections.abc import Collection, Sequence


class CycleError(ValueError):
    """The graph has a cycle through `nodes`: each leads to the next, the last to the first."""

    def __init__(self, nodes: list[int]) -> None:
        super().__init__(f"the graph has a cycle through {nodes}")
        self.nodes = nodes


def topological_order(successors: Sequence[Sequence[int]]) -> list[int]:
    """Return all nodes, each after the nodes that lead to it (Kahn, 1962).

    Raises:
        CycleError: if the graph has a cycle.
    """
    waits_for = [0] * len(successors)
    for targets in successors:
        for target in targets:
            waits_for[target] += 1
    order = [node for node, count in enumerate(waits_for) if count == 0]
    for node in order:  # grows while it is walked
        for target in successors[node]:
            waits_for[target] -= 1
            if waits_for[target] == 0:
                order.append(target)
    if len(order) < len(successors):
        raise CycleError(_cycle(successors, waits_for))
    return order


def articulation_nodes(successors: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Return the nodes that every path from a source to a sink crosses, in topological order.

    `order` is any topological order. Imagine one node before all sources and one after all sinks:
    a path misses a node exactly if one of its edges leads from before the node to after it in that
    order, so it is enough to know how far the edges of all earlier nodes reach.
    """
    position = [0] * len(order)
    for place, node in enumerate(order):
        position[node] = place
    has_predecessor = {target for targets in successors for target in targets}
    sources = (node for node in order if node not in has_predecessor)
    furthest = max((position[node] for node in sources), default=0)
    found = []
    for place, node in enumerate(order):
        if furthest <= place:
            found.append(node)
        behind_all = len(order)
        reached = max((position[target] for target in successors[node]), default=behind_all)
        furthest = max(furthest, reached)
    return found


def blocks_between(order: Sequence[int], closing: Collection[int]) -> list[list[int]]:
    """Cut a topological order after each of the `closing` nodes; the rest is a block too."""
    last_of_block = set(closing)
    blocks: list[list[int]] = [[]]
    for node in order:
        blocks[-1].append(node)
        if node in last_of_block:
            blocks.append([])
    return [block for block in blocks if block]


def _cycle(successors: Sequence[Sequence[int]], waits_for: Sequence[int]) -> list[int]:
    """Return the nodes of one cycle among those that still wait for a predecessor."""
    waited_for = {
        target: node
        for node, targets in enumerate(successors)
        if waits_for[node]
        for target in targets
    }
    node = next(node for node, count in enumerate(waits_for) if count)
    backwards: dict[int, None] = {}
    while node not in backwards:
        backwards[node] = None
        node = waited_for[node]
    seen = list(backwards)
    return seen[seen.index(node) :][::-1]
