"""The weights under which a lagged micro-batch runs backward: replayed, live or stashed.

A micro-batch is lagged if the weights are updated between its two passes. A policy says whether
lagged micro-batches are replayed, what surrounds their forward pass and what surrounds an update.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

_CAST = "ToCopyBackward0"
_VIEWS = frozenset(
    {
        *("AliasBackward0", "AsStridedBackward0", "DiagonalBackward0", "ExpandBackward0"),
        *("PermuteBackward0", "ReshapeAliasBackward0", "SelectBackward0", "SliceBackward0"),
        *("SplitBackward0", "SplitWithSizesBackward0", "SqueezeBackward0", "SqueezeBackward1"),
        *("TBackward0", "TransposeBackward0", "UnbindBackward0", "UnfoldBackward0"),
        *("UnsafeViewBackward0", "UnsqueezeBackward0", "ViewBackward0"),
    }
)


class WeightPolicy(Protocol):
    """How one stage treats lagged micro-batches."""

    replays: bool

    @property
    def reads_anew(self) -> Callable[[Tensor], bool] | None:
        """What tells of a tensor that a graph keeps if its backward pass computes it anew.

        None if a graph may keep what was computed from weights as it is.
        """

    def lagged_forward(self) -> AbstractContextManager[None]:
        """Surround the forward pass of a lagged micro-batch whose graph is kept."""

    def update(self) -> AbstractContextManager[None]:
        """Surround a change of the weights."""


class ReplayWeights:
    """`replay`: forward without a graph, then once more under the weights of the backward pass."""

    replays = True
    reads_anew = None

    def lagged_forward(self) -> AbstractContextManager[None]:
        """Do nothing: no graph is kept that an update could harm."""
        return nullcontext()

    def update(self) -> AbstractContextManager[None]:
        """Let the weights change in place."""
        return nullcontext()


class LiveWeights:
    """`live`: backward through the kept graph under the weights of the backward pass."""

    replays = False

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = tuple(parameters)

    def reads_anew(self, tensor: Tensor) -> bool:
        """Tell that a graph keeps tensors as they are, if it was not the weights themselves."""
        return False

    def lagged_forward(self) -> AbstractContextManager[None]:
        """Do nothing: a graph refers to the weights themselves."""
        return nullcontext()

    @contextmanager
    def update(self) -> Iterator[None]:
        """Let the weights change in place and keep autograd from noticing.

        A graph in flight refers to the weights and would refuse to run once their version has
        changed; here it is to read their new values.
        """
        with _unsafe_preserve_version_counter(self._parameters):
            yield


@dataclass(frozen=True)
class _CastWeight:
    """A view of a parameter's cast, kept without its memory."""

    parameter: nn.Parameter
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int | torch.SymInt


class LiveCastWeights(LiveWeights):
    """The `live` policy under mixed precision, where operations read casts of the weights.

    A graph would keep each cast and so read old weights. Instead it keeps a reference to the
    weight, which autograd's record of the cast reveals; the backward pass casts the weight anew,
    once for each update. This also saves the memory of the casts.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(parameters)
        self._identities = {id(parameter) for parameter in parameters}
        self._casts: dict[tuple[int, torch.dtype], Tensor] = {}

    def reads_anew(self, tensor: Tensor) -> bool:
        """Tell if a tensor is the cast of a whole weight, or a view of one."""
        return isinstance(self._keep(tensor), _CastWeight)

    @contextmanager
    def lagged_forward(self) -> Iterator[None]:
        """Let the graph refer to the weights instead of their casts."""
        with torch.autograd.graph.saved_tensors_hooks(self._keep, self._read):
            yield

    @contextmanager
    def update(self) -> Iterator[None]:
        """Let the weights change in place, then drop their casts."""
        with super().update():
            yield
        self._casts.clear()

    def _keep(self, tensor: Tensor) -> Tensor | _CastWeight:
        whole = tensor if tensor._base is None else tensor._base
        cast = whole.grad_fn
        if cast is None or cast.name() != _CAST:
            return tensor
        origin = cast.next_functions[0][0]
        while origin is not None and origin.name() in _VIEWS:
            origin = origin.next_functions[0][0]
        parameter = self._parameter_at(origin)
        # A cast keeps the memory layout. A view of all of a weight, such as its transpose, covers
        # the same memory in the same order, so its cast and the weight's cast are alike in memory.
        # A layer that casts a part of a weight is run again instead (see `ReplayedLayers`).
        if parameter is None or whole.numel() != parameter.numel():
            return tensor
        return _CastWeight(
            parameter, tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset()
        )

    def _parameter_at(self, node: Any) -> nn.Parameter | None:
        variable = getattr(node, "variable", None)
        return variable if id(variable) in self._identities else None

    def _read(self, kept: Tensor | _CastWeight) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        key = id(kept.parameter), kept.dtype
        if key not in self._casts:
            self._casts[key] = kept.parameter.detach().to(kept.dtype)
        return self._casts[key].as_strided(kept.size, kept.stride, kept.offset)


class StashedWeights:
    """`stash`: backward under the weights of the forward pass, whose old versions are kept."""

    replays = False
    reads_anew = None

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = tuple(parameters)
        self._identities = {id(parameter) for parameter in parameters}

    @contextmanager
    def lagged_forward(self) -> Iterator[None]:
        """Let the graph refer to the memory that holds the weights now, not to the parameters."""
        with torch.autograd.graph.saved_tensors_hooks(self._memory_of, unchanged):
            yield

    @contextmanager
    def update(self) -> Iterator[None]:
        """Let a copy of the weights change; graphs in flight keep the old memory alive."""
        for parameter in self._parameters:
            parameter.data = parameter.data.clone()
        yield

    def _memory_of(self, tensor: Tensor) -> Tensor:
        return tensor.detach() if id(tensor) in self._identities else tensor


def unchanged(tensor: Tensor) -> Tensor:
    """Return what a graph has kept as it is."""
    return tensor


def weight_policy(
    name: str, parameters: Sequence[nn.Parameter], *, casts: bool = False
) -> WeightPolicy:
    """Return the policy `replay`, `live` or `stash` for one stage's parameters.

    `double-buffer` keeps what `stash` keeps; `PreviousWeights` says which forward sees it.
    `casts` is True under mixed precision, where operations read casts of the weights.
    """
    match name:
        case "live" if casts:
            return LiveCastWeights(parameters)
        case "live":
            return LiveWeights(parameters)
        case "stash" | "double-buffer":
            return StashedWeights(parameters)
        case _:
            return ReplayWeights()
