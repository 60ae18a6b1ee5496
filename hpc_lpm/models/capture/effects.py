"""What an operation does beside returning a value: it shares or changes memory, or draws."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

_MASKS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
"""Operations that return their input itself in evaluation mode, though they do not declare it."""

_STATISTICS = ("batch_norm", "instance_norm")
"""Operations that change the buffers that they are given, though they do not declare it."""


def is_random(node: Node) -> bool:
    """Tell if an operation draws random numbers."""
    if isinstance(node.target, torch._ops.OpOverload):
        if torch.Tag.nondeterministic_seeded not in node.target.tags:
            return False
        name = _name(node)
        if name in _MASKS:
            return bool(node.args[2] and node.args[1])
        if name == "scaled_dot_product_attention":
            return bool(_given(node, "dropout_p", 0.0))
        return True
    return any(is_random(inner) for body in bodies_of(node) for inner in body.graph.nodes)


def aliased(node: Node) -> Iterator[Node]:
    """Yield the arguments whose memory an operation's result may share."""
    if not isinstance(node.target, torch._ops.OpOverload):
        # getitem of a tuple, or an operation with a body.
        yield from (argument for argument in node.all_input_nodes if argument.op != "get_attr")
        return
    if _name(node) in _MASKS and isinstance(node.args[0], Node):
        yield node.args[0]
    for argument, value in _declared(node):
        if argument.alias_info is not None and any(
            result.alias_info is not None for result in node.target._schema.returns
        ):
            yield from _nodes(value)


def mutated(node: Node) -> list[Node]:
    """Return the arguments whose values an operation changes."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return _mutated_by_body(node)
    changed: list[Node] = []
    if _name(node) in _STATISTICS and node.args[5]:
        changed += [value for value in node.args[3:5] if isinstance(value, Node)]
    for argument, value in _declared(node):
        written = argument.alias_info is not None and argument.alias_info.is_write
        # Detaching in place changes the history of a value, not the value.
        if written and _name(node) != "detach_":
            changed += _nodes(value)
    return changed


def bodies_of(node: Node) -> list[GraphModule]:
    """Return the bodies of an operation that contains others, such as a region without a graph."""
    owner = node.graph.owning_module
    found = []
    for argument in node.all_input_nodes:
        if argument.op == "get_attr" and owner is not None:
            body = getattr(owner, str(argument.target))
            if isinstance(body, GraphModule):
                found.append(body)
    return found


def _mutated_by_body(node: Node) -> list[Node]:
    changed: list[Node] = []
    given = [argument for argument in node.args if isinstance(argument, Node)]
    passed = [argument for argument in given if argument.op != "get_attr"]
    for body in bodies_of(node):
        inside = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
        shared = {inner: inner for inner in inside}
        for inner in body.graph.nodes:
            if inner.op != "call_function":
                continue
            for source in aliased(inner):
                if source in shared:
                    shared[inner] = shared[source]
            written = {shared[target] for target in mutated(inner) if target in shared}
            changed += [
                outer for outer, name in zip(passed, inside, strict=False) if name in written
            ]
    return changed


def _declared(node: Node) -> Iterator[tuple[Any, Any]]:
    """Yield each argument as the operation declares it, with the value that is passed."""
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    for number, argument in enumerate(arguments):
        if number < len(node.args):
            yield argument, node.args[number]
        elif argument.name in node.kwargs:
            yield argument, node.kwargs[argument.name]


def _given(node: Node, name: str, default: object) -> object:
    return next((value for argument, value in _declared(node) if argument.name == name), default)


def _nodes(value: object) -> list[Node]:
    if isinstance(value, Node):
        return [value]
    if isinstance(value, list | tuple):
        return [item for item in value if isinstance(item, Node)]
    return []


def _name(node: Node) -> str:
    packet: str = node.target._schema.name  # type: ignore[union-attr]
    return packet.partition("::")[2]
