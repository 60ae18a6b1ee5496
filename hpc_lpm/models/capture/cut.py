"""Where a recording is cut into fine-grained layers."""

from itertools import pairwise

import torch
from torch.fx import Node

from hpc_lpm.models.capture.calls import ModuleCall, calls_of, common_calls
from hpc_lpm.models.capture.crossing import Crossing
from hpc_lpm.models.capture.flow import Flow, arguments_of

_PRODUCTS = {
    "matmul",
    "mm",
    "bmm",
    "baddbmm",
    "einsum",
    "scaled_dot_product_attention",
}
"""Operations that take time without having weights."""

_NEIGHBOURS = 3
"""How many cuts on either side a cut is compared with."""

_MORE_TENSORS = 1
"""How many tensors more than at the best of its neighbours on one side may cross a cut."""


def find_cuts(flow: Flow, crossing: Crossing) -> list[int]:
    """Return the places at which a flow is cut, in ascending order.

    Every layer has at least one step that takes time: one with weights, or a matrix product. Of the
    places between two such steps one is taken where fewest tensors cross, and fewest bytes; module
    calls that lie on one side as a whole are not cut. Places that more tensors cross than some near
    by on either side are left out, such as those between a key and a value.
    """
    heavy = heavy_steps(flow)
    calls = [calls_of(step) for step in flow.steps]
    spans = _spans(calls)
    found = []
    for before, after in pairwise(heavy):
        place = _best(flow, crossing, calls, spans, before, after)
        if place is not None:
            found.append(place)
    counts = [crossing.tensors[place] for place in found]
    kept = []
    for number, place in enumerate(found):
        left = counts[max(0, number - _NEIGHBOURS) : number + 1]
        right = counts[number : number + _NEIGHBOURS + 1]
        if counts[number] <= max(min(left), min(right)) + _MORE_TENSORS:
            kept.append(place)
    return kept


def heavy_steps(flow: Flow) -> list[int]:
    """Return the steps that take time: those with weights, and products of matrices."""
    weights = set(flow.recording.state) - {
        node
        for node, name in flow.recording.state.items()
        if name in flow.recording.transient or not _is_real(node)
    }
    # What is made of weights alone belongs to the step that uses it.
    made: set[Node] = set(weights)
    heavy = []
    for number, step in enumerate(flow.steps):
        arguments = list(arguments_of(step))
        if arguments and all(argument in made for argument in arguments):
            made.add(step)
        elif any(argument in made for argument in arguments) or _name(step) in _PRODUCTS:
            heavy.append(number)
    return heavy


def _best(
    flow: Flow,
    crossing: Crossing,
    calls: list[list[ModuleCall]],
    spans: dict[ModuleCall, tuple[int, int]],
    before: int,
    after: int,
) -> int | None:
    shared = common_calls(calls[before], calls[after])
    first, last = before + 1, after
    if shared < len(calls[before]):
        first = max(first, spans[calls[before][shared]][1] + 1)
    elif calls[before] == calls[after] and _in_one_torch_module(calls[before]):
        return None
    if shared < len(calls[after]):
        last = min(last, spans[calls[after][shared]][0])
    for places in (range(first, last + 1), range(before + 1, after + 1)):
        allowed = [place for place in places if crossing.allowed[place]]
        if allowed:
            return min(allowed, key=lambda place: (*crossing.weight(place), -place))
    return None


def _in_one_torch_module(calls: list[ModuleCall]) -> bool:
    """Tell if the innermost call is of a module of torch's that is one operation to its users."""
    return (
        bool(calls)
        and calls[-1].type.startswith("torch.nn.modules")
        and (not calls[-1].type.endswith("MultiheadAttention"))
    )


def _spans(calls: list[list[ModuleCall]]) -> dict[ModuleCall, tuple[int, int]]:
    """Return the first and the last step of each call."""
    spans: dict[ModuleCall, tuple[int, int]] = {}
    for number, several in enumerate(calls):
        for call in several:
            spans[call] = (spans.get(call, (number, number))[0], number)
    return spans


def _is_real(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _name(node: Node) -> str:
    return getattr(node.target, "__name__", "").partition(".")[0]
