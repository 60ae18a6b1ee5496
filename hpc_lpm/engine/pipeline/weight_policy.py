"""What is done with a micro-batch whose weights are updated between its two passes.

The policies of METHOD section 2. Each is asked three things: whether lagged micro-batches are
replayed, what surrounds the forward pass of one, and what surrounds an update.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter


class WeightPolicy(Protocol):
    """How one stage treats lagged micro-batches."""

    replays: bool

    def lagged_forward(self) -> AbstractContextManager[None]:
        """Surround the forward pass of a lagged micro-batch whose graph is kept."""

    def update(self) -> AbstractContextManager[None]:
        """Surround an optimizer step."""


class ReplayWeights:
    """Forward without a graph, once more under the weights of the backward pass."""

    replays = True

    def lagged_forward(self) -> AbstractContextManager[None]:
        """Nothing is kept that an update could harm."""
        return nullcontext()

    def update(self) -> AbstractContextManager[None]:
        """Change the weights in place."""
        return nullcontext()


class LiveWeights:
    """Backward through the stored graph, which reads the weights of now."""

    replays = False

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = tuple(parameters)

    def lagged_forward(self) -> AbstractContextManager[None]:
        """Let the graph refer to the weights themselves, as it does anyway."""
        return nullcontext()

    @contextmanager
    def update(self) -> Iterator[None]:
        """Change the weights in place and keep autograd from noticing.

        A graph in flight refers to the weights and refuses to run once their version has changed;
        here it is to read what they are then.
        """
        with _unsafe_preserve_version_counter(self._parameters):
            yield


class StashedWeights:
    """Backward with the weights of the forward pass, of which old versions are kept (PipeDream)."""

    replays = False

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = tuple(parameters)
        self._identities = {id(parameter) for parameter in parameters}

    @contextmanager
    def lagged_forward(self) -> Iterator[None]:
        """Let the graph refer to the memory that holds the weights now, not to the weights."""
        with torch.autograd.graph.saved_tensors_hooks(self._memory_of, _unchanged):
            yield

    @contextmanager
    def update(self) -> Iterator[None]:
        """Change a copy of the weights; the old memory lives as long as a graph refers to it."""
        for parameter in self._parameters:
            parameter.data = parameter.data.clone()
        yield

    def _memory_of(self, tensor: Tensor) -> Tensor:
        return tensor.detach() if id(tensor) in self._identities else tensor


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def weight_policy(
    name: str, parameters: Sequence[nn.Parameter], *, casts: bool = False
) -> WeightPolicy:
    """Return the policy `replay`, `live` or `stash` for one stage's parameters.

    `casts` tells that operations read casts of the weights (mixed precision).
    """
    match name:
        case "live" if casts:
            # Imported here, since it extends the policy above.
            from hpc_lpm.engine.pipeline.live_casts import LiveCastWeights

            return LiveCastWeights(parameters)
        case "live":
            return LiveWeights(parameters)
        case "stash":
            return StashedWeights(parameters)
        case _:
            return ReplayWeights()
