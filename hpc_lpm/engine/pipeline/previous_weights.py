"""Forwards of step t under the weights after update t - 1: the two buffers of PipeDream-2BW.

Narayanan et al. (2021), "Memory-Efficient Pipeline-Parallel DNN Training":
W^(t+1) = W^(t) - v grad f(W^(t-1)), at every stage. As long as a step has no fewer micro-batches
than there are stages, a forward of step t comes after t - 1 updates of its stage, and then sees the
current weights, or after t, and then sees those before the last update.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn


class PreviousWeights:
    """Gives forwards that an update has overtaken the weights before it, in place of a prediction.

    Policy `stash` runs their backwards under the same weights. Steps and updates count from the
    last drain; the first step after it sees the current weights.

    Args:
        parameters: those of the stages that this rank holds.
    """

    behind = 1

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = tuple(parameters)
        self.begin()

    def begin(self) -> None:
        """Forget the weights before the last update; nothing is in flight."""
        self._updates = 0
        self._previous: list[Tensor] = []

    def is_ahead(self, step: int) -> bool:
        """Tell if a forward of this step is to run under the weights before the last update."""
        return 0 < step <= self._updates

    @contextmanager
    def applied(self, step: int) -> Iterator[None]:
        """Let the parameters be the weights before the last update meanwhile."""
        current = [parameter.data for parameter in self._parameters]
        try:
            self._hold(self._previous)
            yield
        finally:
            self._hold(current)

    def _hold(self, weights: Sequence[Tensor]) -> None:
        for parameter, weight in zip(self._parameters, weights, strict=True):
            parameter.data = weight

    def add_gradients(self, samples: int, step_samples: int) -> None:
        """Do nothing: gradients change nothing before their update."""

    @contextmanager
    def update(self, *, skipped: bool) -> Iterator[None]:
        """Keep the weights before an update; policy `stash` lets a copy of them change."""
        self._previous = [parameter.data for parameter in self._parameters]
        yield
        self._updates += 1

    def update_from(self, stage: int) -> AbstractContextManager[None]:
        """Refuse copies of another stage's weights, whose updates come at other times.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("tied weights have no previous version: this is a defect of the toolkit")

    def saved(self) -> Mapping[nn.Parameter, Mapping[str, Tensor]]:
        """Return nothing: a checkpoint drains, after which no previous weights are seen."""
        return {}

    def restore(self, saved: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
        """Restore nothing."""
