"""What would cross each place between two steps."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import sympy
import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from hpc_lpm.models.capture.flow import Flow, is_tensor

_ASSUMED_BATCH = 64


@dataclass(frozen=True)
class Crossing:
    """What is alive at each place; place p lies before step p.

    `tensors` counts the values that are needed on the other side and `bytes` adds up their sizes;
    `allowed` tells where a cut may be.
    """

    tensors: list[int]
    bytes: list[int]
    allowed: list[bool]
    last: dict[Node, int]

    def weight(self, place: int) -> tuple[int, int]:
        """Return what is to be small at a cut."""
        return self.tensors[place], self.bytes[place]


def last_uses(flow: Flow) -> dict[Node, int]:
    """Return the last step that needs each value; an output is needed after the last step."""
    last: dict[Node, int] = {}
    for number, step in enumerate(flow.steps):
        for value in flow.sources(step):
            if value in flow.place:
                last[value] = number
    for leaf in pytree.tree_leaves(flow.output):
        if isinstance(leaf, Node):
            for value in flow.resolve(leaf):
                if value in flow.place:
                    last[value] = len(flow.steps)
    return last


def crossing_of(flow: Flow) -> Crossing:
    """Measure every place between two steps of a flow."""
    size = len(flow.steps) + 2
    tensors, sizes, refused, batched = ([0] * size for _ in range(4))
    last = last_uses(flow)
    for value, end in last.items():
        start = flow.place[value] + 1
        weights = (
            (tensors, 1),
            (sizes, _bytes(value)),
            (refused, not is_tensor(value) or not _dense(value, flow)),
            (batched, _tells_batch_size(value)),
        )
        for counts, weight in weights:
            counts[start] += weight
            counts[end + 1] -= weight
    for first, stop in flow.bound:
        refused[first + 1] += 1
        refused[stop + 1] -= 1
    dynamic = any(_tells_batch_size(node) for node in flow.recording.inputs)
    allowed = [
        bad == 0 and (tells > 0 or not dynamic)
        for bad, tells in zip(accumulate(refused), accumulate(batched), strict=True)
    ]
    return Crossing(list(accumulate(tensors)), list(accumulate(sizes)), allowed, last)


def crossing_values(flow: Flow, crossing: Crossing, places: list[int]) -> list[list[Node]]:
    """Return the values that are alive at each of some places, in the order of their making.

    The places ascend.
    """
    found: list[list[Node]] = [[] for _ in places]
    for value in sorted(crossing.last, key=lambda node: flow.place[node]):
        first = bisect_right(places, flow.place[value])
        for number in range(first, bisect_right(places, crossing.last[value])):
            found[number].append(value)
    return found


def batch_dimension(node: Node) -> int | None:
    """Return the dimension of a tensor that is the batch, None if none is."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    for number, length in enumerate(value.shape):
        if isinstance(length, torch.SymInt) and length.node.expr.is_Symbol:
            return number
    return None


def _tells_batch_size(node: Node) -> bool:
    return batch_dimension(node) is not None


def _bytes(node: Node) -> int:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return 0
    elements = 1
    for length in value.shape:
        elements *= length if isinstance(length, int) else _at_assumed_batch(length)
    return elements * value.element_size()


def _at_assumed_batch(length: torch.SymInt) -> int:
    return _evaluated(length.node.expr)


@lru_cache(maxsize=4096)
def _evaluated(expression: sympy.Expr) -> int:
    return int(expression.subs(dict.fromkeys(expression.free_symbols, _ASSUMED_BATCH)))


def _dense(node: Node, flow: Flow) -> bool:
    """Tell if a value fills its memory, so that it arrives with the same strides.

    What has no gradient may be copied, since it is as good.
    """
    if node not in flow.differentiable:
        return True
    value = node.meta["val"]
    expected = 1
    order = sorted(range(value.dim()), key=lambda d: _number(value.stride(d)))
    for dimension in order:
        length, stride = _number(value.shape[dimension]), _number(value.stride(dimension))
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


def _number(length: int | torch.SymInt) -> int:
    return length if isinstance(length, int) else _at_assumed_batch(length)
