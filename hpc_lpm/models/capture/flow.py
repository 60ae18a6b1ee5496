"""Which operations of a recording are steps of the chain, and what is rebuilt in every layer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from hpc_lpm.models.capture.effects import aliased, is_random, mutated
from hpc_lpm.models.capture.export import Recording

_VIEWS = {
    "expand",
    "view",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "transpose",
    "permute",
    "alias",
    "detach",
}
"""Operations that cost nothing and whose result need not travel where their input does."""

_CHECKS = ("_assert", "sym_constrain_range")


@dataclass(frozen=True)
class Flow:
    """The operations of one mode in order, sorted by where they are computed.

    `steps` are computed once, each in one layer. `tabled` depend on nothing but the batch size and
    constants, which are `given`: their tensors are looked up in a table. `rebuilt` are numbers that
    depend on the batch size, and views of values without a gradient: they are made anew in every
    layer that needs them. `output`
    are the nodes that the chain returns, within a pytree. `changed` are the names of buffers that
    some step changes, `bound` are first and last steps between which nothing may be cut, and
    `table_writers` are the operations that write into a tabled value, for those that have any.
    """

    recording: Recording
    steps: list[Node]
    tabled: list[Node]
    given: frozenset[Node]
    rebuilt: frozenset[Node]
    differentiable: frozenset[Node]
    output: Any
    changed: frozenset[str]
    bound: list[tuple[int, int]]
    table_writers: dict[Node, tuple[Node, ...]]
    place: dict[Node, int] = field(default_factory=dict)

    def sources(self, node: Node) -> Iterator[Node]:
        """Yield the values that a step needs: of steps, inputs, tables and state."""
        for argument in arguments_of(node):
            yield from self.resolve(argument)

    def resolve(self, node: Node) -> Iterator[Node]:
        """Yield the values from which a value is rebuilt, itself if it is not."""
        if node not in self.rebuilt:
            yield node
            return
        for argument in arguments_of(node):
            # The batch size is asked of any tensor, not of the one whose size was recorded.
            if not is_batch_size(node):
                yield from self.resolve(argument)


def is_tensor(node: Node) -> bool:
    """Tell if a node's value is a tensor."""
    return isinstance(node.meta.get("val"), Tensor)


def is_batch_size(node: Node) -> bool:
    """Tell if a node reads the size of a dimension that is the batch's."""
    if node.target is not torch.ops.aten.sym_size.int:
        return False
    value = node.meta.get("val")
    return isinstance(value, torch.SymInt) and value.node.expr.is_Symbol


def arguments_of(node: Node) -> Iterable[Node]:
    """Return the nodes among an operation's arguments, bodies of operations left out."""
    return [argument for argument in node.all_input_nodes if argument.op != "get_attr"]


def flow_of(recording: Recording, output: Any, trained: frozenset[str], fixed: bool) -> Flow:
    """Sort the operations of a recording.

    Args:
        recording: the operations of one mode.
        output: what the chain returns, with nodes for tensors.
        trained: names of the parameters that require a gradient.
        fixed: tell that floating-point inputs have no gradient either.
    """
    nodes = _needed(recording, output)
    groups = _storage_groups(nodes)
    writers = _writers(nodes, groups)
    changed = frozenset(
        recording.state[node] for node in recording.state if writers.get(groups.get(node, node))
    )
    differentiable = _differentiable(recording, nodes, trained, fixed)
    given = {
        node
        for node, name in recording.state.items()
        if name in recording.transient and name not in changed
    } | set(recording.constants)
    tabled, scalars = _tabled(recording, nodes, groups, writers, given)
    views = {
        node
        for node in nodes
        if _is_view(node)
        and node not in differentiable
        and node not in tabled
        and not writers.get(groups.get(node, node))
        and not set(node.all_input_nodes) & set(recording.state)
    }
    rebuilt = scalars | views
    steps = _ordered([node for node in nodes if node not in tabled and node not in rebuilt])
    place = {node: number for number, node in enumerate(steps)}
    place.update(dict.fromkeys(recording.inputs, -1))
    return Flow(
        recording,
        steps,
        [node for node in nodes if node in tabled or node in scalars],
        frozenset(given),
        frozenset(rebuilt),
        frozenset(differentiable),
        output,
        changed,
        _bound(steps, place, groups, writers),
        {
            node: tuple(writers[groups[node]])
            for node in tabled
            if node in groups and writers.get(groups[node])
        },
        place,
    )


def _needed(recording: Recording, output: Any) -> list[Node]:
    """Return the operations on which the output or a buffer depends, in order."""
    calls = [node for node in recording.graph.nodes if node.op == "call_function"]
    wanted = {leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Node)}
    for node in reversed(calls):
        name = getattr(node.target, "__name__", str(node.target))
        if name.startswith(_CHECKS):
            continue
        if node in wanted or mutated(node) or is_random(node):
            wanted.add(node)
            wanted.update(arguments_of(node))
    return [node for node in calls if node in wanted]


def _storage_groups(nodes: list[Node]) -> dict[Node, Node]:
    """Return for each value the first one with which it may share memory."""
    groups: dict[Node, Node] = {}

    def group(node: Node) -> Node:
        while groups.setdefault(node, node) is not node:
            node = groups[node]
        return node

    for node in nodes:
        for argument in arguments_of(node):
            group(argument)
        for source in aliased(node):
            groups[group(node)] = group(source)
    return {node: group(node) for node in list(groups)}


def _writers(nodes: list[Node], groups: dict[Node, Node]) -> dict[Node, list[Node]]:
    writers: dict[Node, list[Node]] = defaultdict(list)
    for node in nodes:
        for target in mutated(node):
            writers[groups.get(target, target)].append(node)
    return writers


def _differentiable(
    recording: Recording, nodes: list[Node], trained: frozenset[str], fixed: bool
) -> set[Node]:
    """Return the values that may have a gradient."""
    found = {node for node, name in recording.state.items() if name in trained}
    if not fixed:
        found.update(node for node in recording.inputs if _is_real(node))
    for node in nodes:
        name = getattr(node.target, "__name__", "")
        cut = name.startswith("detach") or (
            "set_grad_enabled" in str(node.target) and node.args[0] is False
        )
        if not cut and not is_tensor(node):
            # A tuple of tensors, whose parts are looked at one by one.
            if any(argument in found for argument in arguments_of(node)):
                found.add(node)
        elif not cut and _is_real(node) and any(one in found for one in arguments_of(node)):
            found.add(node)
            found.update(mutated(node))
    return found


def _is_real(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _tabled(
    recording: Recording,
    nodes: list[Node],
    groups: dict[Node, Node],
    writers: dict[Node, list[Node]],
    given: set[Node],
) -> tuple[set[Node], set[Node]]:
    """Return the values that depend on the batch size alone: tensors, and numbers."""
    rejected: set[Node] = set()
    order = {node: number for number, node in enumerate(recording.graph.nodes)}
    while True:
        tabled: set[Node] = set()
        scalars: set[Node] = set()
        for node in nodes:
            if is_batch_size(node):
                scalars.add(node)
                continue
            constant = all(
                argument in given or argument in tabled or argument in scalars
                for argument in arguments_of(node)
            ) and not any(argument.op == "get_attr" for argument in node.all_input_nodes)
            if not constant or is_random(node) or node in rejected:
                continue
            number = isinstance(
                node.meta.get("val"), (int, float, bool, torch.SymInt, torch.SymFloat)
            )
            (scalars if number else tabled).add(node)
        # What a step writes into is not constant, nor what a step reads before it is written.
        more = {
            node
            for node in tabled
            if any(
                writer not in tabled
                or any(order[user] < order[writer] for user in node.users if user not in tabled)
                for writer in writers.get(groups.get(node, node), ())
            )
        }
        if not more:
            return tabled, scalars
        rejected |= more


def _is_view(node: Node) -> bool:
    name = getattr(node.target, "__name__", "").partition(".")[0]
    if name not in _VIEWS or not is_tensor(node):
        return False
    source = next(iter(arguments_of(node)), None)
    return source is not None and is_tensor(source)


def _ordered(steps: list[Node]) -> list[Node]:
    """Move each assignment to a buffer, which torch.export puts last, to where it can be first."""
    assignments = [
        node
        for node in steps
        if node.target is torch.ops.aten.copy_.default
        and isinstance(node.args[0], Node)
        and node.args[0].op == "placeholder"
        and not node.users
    ]
    if not assignments:
        return steps
    late = set(assignments)
    place = {node: number for number, node in enumerate(steps)}
    after: dict[int, list[Node]] = defaultdict(list)
    for node in assignments:
        others = [place[user] for user in node.args[0].users if user in place and user not in late]  # type: ignore[union-attr]
        source = [place[argument] for argument in arguments_of(node) if argument in place]
        after[max([-1, *others, *source])].append(node)
    ordered = list(after[-1])
    for number, node in enumerate(steps):
        if node not in late:
            ordered.append(node)
        ordered.extend(after.get(number, ()))
    return ordered


def _bound(
    steps: list[Node],
    place: dict[Node, int],
    groups: dict[Node, Node],
    writers: dict[Node, list[Node]],
) -> list[tuple[int, int]]:
    """Return ranges of steps that stay together, since one writes into another's result."""
    first: dict[Node, int] = {}
    for node in steps:
        first.setdefault(groups.get(node, node), place[node])
    return [
        (first[group], place[writer])
        for group, several in writers.items()
        for writer in several
        if group in first and writer in place
    ]
