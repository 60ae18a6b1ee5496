"""Finds in an autograd graph which weights' gradients can be computed after the inputs'.

The nodes from which an input is reached are the trunk. Where a node of the trunk also leads to a
node outside it, a branch begins, which ends at weights alone. A branch can wait if what computes it
does not compute a gradient of the trunk by the same kernel, and if no other branch meets it, so
that neither a kernel runs twice nor the order of a sum changes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, Node

from hpc_lpm.split_backward.saved import has_hooks_on_saved

INDEPENDENT = frozenset(
    {
        *("ConvolutionBackward0", "ConvolutionOverrideableBackward0"),
        *("LinearBackward0", "AddmmBackward0", "MmBackward0", "AddmvBackward0", "MvBackward0"),
        *("BmmBackward0", "BaddbmmBackward0", "AddbmmBackward0", "AddrBackward0", "DotBackward0"),
        "TrilinearBackward0",
        *("AddBackward0", "SubBackward0", "RsubBackward0", "MulBackward0", "DivBackward0"),
        *("AddcmulBackward0", "AddcdivBackward0", "LerpBackward1", "PowBackward1"),
        *("CatBackward0", "StackBackward0", "WhereBackward0", "MaximumBackward0"),
        "MinimumBackward0",
    }
)
"""Operations that compute the gradient of each argument by a kernel of its own, if it is wanted."""

_REENTRANT_CHECKPOINT = "CheckpointFunctionBackward"
"""Refuses to run backward if autograd is asked for some of the gradients alone."""


@dataclass
class Branch:
    """What a node leads to outside the trunk: `node` is None where it begins at the roots.

    When gradients arrive at `node`, nothing needs those of `spent` any more.
    """

    node: Node | None
    waits: bool
    nodes: set[Node] = field(default_factory=set)
    spent: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Division:
    """How a graph divides.

    Attributes:
        waiting: the branches that can wait, in the order in which a backward pass meets them.
        roots_wait: for each root, whether it begins such a branch.
        leaves: where the first half ends: at inputs, and at weights that cannot wait.
        spent: further nodes that nothing needs any more after the first half.
        asks_for_all: True if the first half must not ask for some of its gradients alone.
    """

    waiting: list[Branch]
    roots_wait: list[bool]
    leaves: list[GradientEdge]
    spent: list[Node]
    asks_for_all: bool


def divide(roots: Sequence[GradientEdge], inputs: Iterable[GradientEdge]) -> Division:
    """Divide the graph behind `roots` into what `inputs` need and what can wait."""
    children = _topological(edge.node for edge in roots)
    trunk = {edge.node for edge in inputs}
    for node in reversed(children):
        if not trunk.isdisjoint(children[node]):
            trunk.add(node)
    found = _Branches()
    for edge in roots:
        if edge.node not in trunk:
            found.lead(found.begun_at(None), edge.node)
    for node, nexts in children.items():
        branch = None if node in trunk else found.grow(node)
        for child in nexts:
            if child not in trunk:
                found.lead(branch or found.begun_at(node), child)

    whole = bool(trunk) and any(node.name() == _REENTRANT_CHECKPOINT for node in children)
    waiting = {} if whole else {n: each for n, each in found.begun.items() if each.waits}
    later = {node for branch in waiting.values() for node in branch.nodes}
    return Division(
        list(waiting.values()),
        [edge.node in later for edge in roots],
        [GradientEdge(node, 0) for node in children if _is_leaf(node) and node not in later],
        _spent(children, waiting, later),
        whole or not waiting,
    )


def _spent(
    children: dict[Node, list[Node]], waiting: dict[Node | None, Branch], later: set[Node]
) -> list[Node]:
    """Tell the waiting branches which nodes have run before theirs, and return the other nodes."""
    place = {node: i for i, node in enumerate(waiting)}
    nearest: dict[Node, Node] = {}
    others = []
    for node in reversed(children):
        if node in waiting:
            nearest[node] = node
        elif node not in later:
            behind = [nearest[child] for child in children[node] if child in nearest]
            if behind:
                nearest[node] = min(behind, key=place.__getitem__)
                waiting[nearest[node]].spent.append(node)
            else:
                others.append(node)
    return others


class _Branches:
    """The branches that have been found, by where they begin and by the nodes in them."""

    def __init__(self) -> None:
        self.begun: dict[Node | None, Branch] = {}
        self.owners: dict[Node, Branch] = {}

    def begun_at(self, node: Node | None) -> Branch:
        if node not in self.begun:
            waits = node is None or (_is_independent(node) and not has_hooks_on_saved(node))
            self.begun[node] = Branch(node, waits)
        return self.begun[node]

    def lead(self, branch: Branch, node: Node) -> None:
        """Add a node to a branch; neither waits if it is in another already."""
        owner = self.owners.setdefault(node, branch)
        owner.nodes.add(node)
        if owner is not branch:
            owner.waits = branch.waits = False

    def grow(self, node: Node) -> Branch:
        """Return the branch of a node that all branches have been led to which meet there."""
        branch = self.owners[node]
        if branch.node is not None and has_hooks_on_saved(node):
            branch.waits = False
        return branch


def _topological(roots: Iterable[Node]) -> dict[Node, list[Node]]:
    """Return the nodes that gradients go to from each node, each node before those it leads to."""
    children: dict[Node, list[Node]] = {}
    finished: dict[Node, list[Node]] = {}
    for root in roots:
        path = [root]
        while path:
            node = path[-1]
            if node not in children:
                children[node] = [child for child, _ in node.next_functions if child is not None]
                path.extend(child for child in children[node] if child not in children)
            else:
                path.pop()
                finished.setdefault(node, children[node])
    return dict(reversed(finished.items()))


def _is_leaf(node: Node) -> bool:
    return type(node).__name__ == "AccumulateGrad"


def _is_independent(node: Node) -> bool:
    return type(node).__name__ in INDEPENDENT and not isinstance(node, BackwardCFunction)
