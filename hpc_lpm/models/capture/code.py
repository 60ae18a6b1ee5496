"""The Python code of one layer in one mode, made of the steps of a flow."""

import linecache
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import getitem
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from hpc_lpm.models.capture.call import Attribute
from hpc_lpm.models.capture.crossing import batch_dimension
from hpc_lpm.models.capture.effects import mutated
from hpc_lpm.models.capture.fast_calls import FUNCTIONS, METHODS
from hpc_lpm.models.capture.flow import Flow, is_batch_size
from hpc_lpm.models.capture.own_gradients import function_of


@dataclass(frozen=True)
class Part:
    """The steps `start` to `stop` - 1 of a flow, with the values that come in and go out.

    `incoming` is None for the first layer, which takes the activation apart, and `outgoing` is None
    for the last, which returns the output.
    """

    flow: Flow
    start: int
    stop: int
    incoming: list[Node] | None
    outgoing: list[Node] | None

    def steps(self) -> list[Node]:
        """Return the steps of the part."""
        return self.flow.steps[self.start : self.stop]

    def returned(self) -> Any:
        """Return the nodes that the layer returns, within a pytree."""
        if self.outgoing is None:
            return self.flow.output
        return self.outgoing[0] if len(self.outgoing) == 1 else tuple(self.outgoing)

    def needed(self) -> list[Node]:
        """Return the values that steps and results need, except those of the steps themselves."""
        found: dict[Node, None] = {}
        for step in self.steps():
            found.update(dict.fromkeys(self.flow.sources(step)))
        for leaf in pytree.tree_leaves(self.returned()):
            if isinstance(leaf, Node):
                found.update(dict.fromkeys(self.flow.resolve(leaf)))
        return list(found)


@dataclass(frozen=True)
class Code:
    """The source of a layer's function, and the tables that it looks up."""

    source: str
    names: dict[str, Any]
    tabled: list[Node]


class _Writer:
    """Writes the steps of a part as a graph that torch.fx turns into code."""

    def __init__(self, part: Part, names: Mapping[str, str]) -> None:
        self._part = part
        self._names = names
        self._graph = Graph()
        self._values: dict[Node, Any] = {}
        self._batch: Any = None
        self._device: Any = None
        self._activation = self._graph.placeholder("activation")
        self._tables = self._graph.placeholder("tables")

    def write(self) -> Code:
        part = self._part
        self._take_apart(part)
        tabled = {*part.flow.tabled, *part.flow.given}
        wanted = [node for node in part.needed() if node in tabled]
        if wanted:
            found = self._graph.call_method(
                "values", (self._tables, self._batch_size(), self._any_device())
            )
            for number, node in enumerate(wanted):
                self._values[node] = self._item(found, number)
        for step in part.steps():
            self._values[step] = self._step(step)
        self._graph.output(pytree.tree_map_only(Node, self._value, part.returned()))
        written = self._graph.python_code("self")
        return Code(written.src, dict(written.globals), wanted)

    def _take_apart(self, part: Part) -> None:
        if part.incoming is None:
            needed = set(part.needed())
            for node, path in part.flow.recording.inputs.items():
                if node in needed or self._tells_batch(node):
                    self._values[node] = self._at(path)
        elif len(part.incoming) == 1:
            self._values[part.incoming[0]] = self._activation
        else:
            for number, node in enumerate(part.incoming):
                self._values[node] = self._item(self._activation, number)
        self._keep_inputs(part)

    def _keep_inputs(self, part: Part) -> None:
        """Copy what the user's forward would change in place: a layer leaves its input alone."""
        written = {target for step in part.steps() for target in mutated(step)}
        for node in [node for node in self._values if node in written]:
            self._values[node] = self._graph.call_method("clone", (self._values[node],))

    def _tells_batch(self, node: Node) -> bool:
        return batch_dimension(node) is not None

    def _at(self, path: tuple[Any, ...]) -> Node:
        value = self._activation
        for step in path:
            if isinstance(step, Attribute):
                value = self._graph.call_function(getattr, (value, step.name))
            else:
                value = self._item(value, step)
        return value

    def _item(self, value: Node, key: Any) -> Node:
        return self._graph.call_function(getitem, (value, key))

    def _batch_size(self) -> Any:
        if self._batch is None:
            for node, value in self._values.items():
                dimension = batch_dimension(node)
                if dimension is not None and isinstance(value, Node):
                    self._batch = self._graph.call_method("size", (value, dimension))
                    break
        return self._batch

    def _any_device(self) -> Any:
        if self._device is None:
            value = next(iter(self._values.values()))
            self._device = self._graph.call_function(getattr, (value, "device"))
        return self._device

    def _step(self, step: Node) -> Node:
        arguments = tuple(self._argument(argument) for argument in step.args)
        keywords = {name: self._argument(value) for name, value in step.kwargs.items()}
        if step.target in METHODS:
            return self._graph.call_method(METHODS[step.target], arguments, keywords)
        if (own := function_of(step)) is not None:
            return self._graph.call_function(own, arguments[:1])
        target: Any = FUNCTIONS.get(step.target, step.target)
        return self._graph.call_function(target, arguments, keywords)

    def _argument(self, argument: Any) -> Any:
        def written(item: Any) -> Any:
            if isinstance(item, Node):
                return self._value(item)
            return self._any_device() if isinstance(item, torch.device) else item

        return pytree.tree_map(written, argument)

    def _value(self, node: Node) -> Any:
        if node in self._values:
            return self._values[node]
        if node.op == "get_attr":
            value = self._graph.create_node("get_attr", self._names[f"{node.target}()"])
        elif node in self._part.flow.recording.state:
            name = self._names[self._part.flow.recording.state[node]]
            value = self._graph.create_node("get_attr", name)
        elif is_batch_size(node):
            return self._batch_size()
        else:
            value = self._step(node)
        self._values[node] = value
        return value


def write_code(part: Part, names: Mapping[str, str]) -> Code:
    """Write the code of a part.

    Args:
        part: the steps of the layer.
        names: the layer's names of parameters and buffers by the module's, and of the bodies of
            operations by the recording's with `()` behind.
    """
    return _Writer(part, names).write()


def bodies_used(part: Part) -> Iterator[str]:
    """Yield the names of the bodies of operations that a part needs."""
    for step in part.steps():
        for argument in step.all_input_nodes:
            if argument.op == "get_attr":
                yield str(argument.target)


def compiled(code: Code) -> Callable[..., Any]:
    """Return the function of a layer's code; equal code gives the same function."""
    key = (code.source, tuple(sorted((name, id(value)) for name, value in code.names.items())))
    return _compiled(key, _Names(code.names))


class _Names:
    """Names for a function's code, left out when calls are compared."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Names)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=4096)
def _compiled(key: tuple[str, tuple[tuple[str, int], ...]], names: _Names) -> Callable[..., Any]:
    source = key[0]
    file = f"<captured layer {abs(hash(key)):x}>"
    values = dict(names.values)
    exec(compile(source, file, "exec"), values)
    # Tracebacks show the lines of the code.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    function: Callable[..., Any] = values["forward"]
    return function
