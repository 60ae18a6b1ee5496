"""Computes the gradients of an operation's weights after, and without, those of its inputs.

Autograd computes what it is asked for, `torch.autograd.backward(..., inputs=weights)`, but to find
out what that needs it walks through everything behind an operation: in a stage of n operations some
n^2 / 2 steps. So the operation is called on its own, while autograd is at work on something else
and has been told that it wants the gradients of the weights. They then go their way as usual.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from hpc_lpm.split_backward.saved import forget_saved

Gradients = tuple[Tensor | None, ...]


class WaitingNode:
    """An operation whose weights' gradients are still to be computed.

    Args:
        node: of an operation with one output, which must not have run backward.
        branch: the nodes behind it that lead to these weights.
        spent: nodes whose memory is released when the gradient arrives.
    """

    def __init__(self, node: Node, branch: set[Node], spent: list[Node]) -> None:
        # Can be called, though its type does not say so.
        self._node: Any = node
        self._spent = spent
        self._edges = [
            GradientEdge(child, place) if child is not None and child in branch else None
            for child, place in node.next_functions
        ]
        self._arrived: list[Gradients] = []

    def watch(self) -> RemovableHandle:
        """Keep the gradient that arrives at the operation, after all hooks on its output."""
        handle: RemovableHandle = self._node.register_prehook(self._arrive)
        return handle

    def _arrive(self, gradients: Gradients) -> None:
        self._arrived.append(gradients)
        forget_saved(self._spent)
        self._spent.clear()

    @property
    def edges(self) -> list[GradientEdge]:
        """Where the gradients go that are wanted of the operation."""
        return [edge for edge in self._edges if edge is not None]

    def run(self) -> None:
        """Accumulate the gradients of the weights; to be called where these alone are wanted."""
        if not self._arrived or self._arrived[0][0] is None:
            return
        found = self._node(*self._arrived.pop())
        forget_saved([self._node])
        computed = found if isinstance(found, tuple) else (found,)
        roots, gradients = [], []
        for edge, gradient in zip(self._edges, computed, strict=True):
            if edge is not None and gradient is not None:
                roots.append(edge)
                gradients.append(_fitted(gradient, edge))
        if roots:
            torch.autograd.backward(roots, gradients)


def run_waiting(nodes: list[WaitingNode]) -> None:
    """Accumulate the gradients that have waited, from the last node to the first; empty `nodes`."""
    # As any backward pass, it is to work for a caller who records no gradients too.
    with torch.enable_grad():
        token = torch.zeros((), requires_grad=True)
        around = _Around.apply(token, nodes)  # type: ignore[no-untyped-call]
    wanted = [get_gradient_edge(token)]
    wanted += [edge for node in nodes for edge in node.edges]
    torch.autograd.grad(around, wanted, allow_unused=True)


class _Around(torch.autograd.Function):
    """Runs waiting nodes in its backward pass."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, nodes: list[WaitingNode]) -> Tensor:
        ctx.nodes = nodes
        return token.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        while ctx.nodes:
            ctx.nodes.pop().run()
        return gradients[0], None


def _fitted(gradient: Tensor, edge: GradientEdge) -> Tensor:
    """Return a gradient as autograd passes it on: summed over what was broadcast, and converted."""
    expected = edge.node._input_metadata[edge.output_nr]
    if gradient.shape != expected.shape:
        gradient = gradient.sum_to_size(expected.shape)
    return gradient.to(expected.dtype)
