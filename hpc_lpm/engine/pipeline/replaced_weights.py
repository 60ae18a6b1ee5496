"""Other values for some weights, for the time of a forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Change = Callable[[list[Tensor]], None]
"""Changes tensors in place."""


@contextmanager
def replaced_weights(
    changes: Sequence[tuple[Sequence[nn.Parameter], Change]], *, in_place: bool
) -> Iterator[None]:
    """Let parameters have changed values meanwhile.

    The weights are held twice meanwhile.

    Args:
        changes: parameters, and what changes their values.
        in_place: True if a graph that is built meanwhile is to read the parameters' own memory,
            with whatever it holds later; False if it keeps the changed values, a copy of the
            weights that lives as long as the graph.
    """
    found = [(parameters, [p.data for p in parameters]) for parameters, _ in changes]
    copies = [[tensor.clone() for tensor in own] for _, own in found]
    try:
        for (parameters, own), copied, (_, change) in zip(found, copies, changes, strict=True):
            # Through `.data`: graphs in flight refuse changes that autograd counts.
            with torch.no_grad():
                change(own if in_place else copied)
            if not in_place:
                for parameter, tensor in zip(parameters, copied, strict=True):
                    parameter.data = tensor
        yield
    finally:
        for (parameters, own), copied in zip(found, copies, strict=True):
            if in_place:
                torch._foreach_copy_(own, copied)
            else:
                for parameter, tensor in zip(parameters, own, strict=True):
                    parameter.data = tensor
