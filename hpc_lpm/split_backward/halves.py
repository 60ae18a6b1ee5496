"""Runs the two halves of the backward pass of one micro-batch."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from hpc_lpm.split_backward.deferred_work import Work, deferring
from hpc_lpm.split_backward.graph import Division, divide
from hpc_lpm.split_backward.saved import forget_saved
from hpc_lpm.split_backward.waiting import WaitingNode, run_waiting


class SplitBackward:
    """The backward pass of one micro-batch in two halves, which add up to the whole to the bit.

    The first half computes the gradients of the inputs and keeps what the second needs: at each
    operation with weights of its own, such as a convolution or a matrix product, the gradient that
    arrives there and what the operation saved. The second computes these weights' gradients. No
    convolution or matrix product runs twice. What yields both at once, or is not known, runs whole
    in the first half: normalisations, recurrent layers, attention kernels, custom Functions,
    checkpointed and compiled parts, and whatever uses a weight that is used elsewhere too. Without
    an input that requires a gradient the whole pass is the second half.

    All hooks run once, those of weights with the whole gradient, save that a hook on an operation
    itself, as `Node.register_hook` sets it, does not hear of weights' gradients that wait.
    """

    def __init__(self) -> None:
        self._waiting: list[WaitingNode] = []
        self._roots: list[_Root] = []
        self._work: list[Work] = []

    def input_half(
        self,
        roots: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        inputs: Iterable[Tensor],
    ) -> None:
        """Accumulate the gradients of `inputs`, and of weights that cannot wait.

        Args:
            roots: tensors that require a gradient.
            gradients: one for each root; None is that of a scalar, 1.
            inputs: tensors that the roots may depend on, those without a gradient are ignored.
        """
        edges = [get_gradient_edge(root) for root in roots]
        entered = [get_gradient_edge(tensor) for tensor in inputs if tensor.requires_grad]
        division = divide(edges, entered)
        now: list[_Root] = []
        for root, edge, gradient, waits in zip(
            roots, edges, gradients, division.roots_wait, strict=True
        ):
            start = _Root(edge, torch.ones_like(root) if gradient is None else gradient)
            (self._roots if waits else now).append(start)
        self._waiting = [
            WaitingNode(branch.node, branch.nodes, branch.spent)
            for branch in reversed(division.waiting)
            if branch.node is not None
        ]
        if now:
            self._run_first(now, division)

    def _run_first(self, roots: "list[_Root]", division: Division) -> None:
        handles = [waiting.watch() for waiting in self._waiting]
        try:
            with deferring(self._work):
                if division.asks_for_all:
                    _backward(roots)
                else:
                    _backward(roots, inputs=division.leaves, retain_graph=True)
        finally:
            for handle in handles:
                handle.remove()
        if not division.asks_for_all:
            forget_saved(division.spent)

    def weight_half(self) -> bool:
        """Accumulate the gradients of the other weights, and let go of the graph.

        Tell if there was anything to do.
        """
        left = bool(self._waiting or self._roots or self._work)
        # From the outputs on, as in a whole pass: a node keeps all nodes alive that are behind it.
        if self._waiting:
            run_waiting(self._waiting)
        roots, self._roots = self._roots, []
        if roots:
            _backward(roots)
        work, self._work = self._work, []
        for each in work:
            each()
        return left


class _Root(NamedTuple):
    edge: GradientEdge
    gradient: Tensor


def _backward(roots: Sequence[_Root], **options: Any) -> None:
    edges, gradients = zip(*roots, strict=True)
    torch.autograd.backward(edges, gradients, **options)
