"""SpecTrain's prediction of weights (Chen et al. 2018): one step of SGD with momentum.

The guess is W - eta (gamma v + mean of the gradients accumulated so far), without weight decay.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hpc_lpm.engine.pipeline.replaced_weights import replaced_weights
from hpc_lpm.engine.updating import Updates


class SpecTrain:
    """Predicts weights one update ahead, from the optimizer and the accumulated gradients.

    Args:
        updates: their optimizer is torch's SGD, with or without momentum.
        in_place: see `replaced_weights`.
        skips: whether an update whose gradients are not finite is skipped.
    """

    behind = 0

    def __init__(self, updates: Updates, *, in_place: bool, skips: bool) -> None:
        self._updates = updates
        self._in_place = in_place
        self._skips = skips
        self._made = self._accumulated_samples = self._step_samples = 0

    def begin(self) -> None:
        """Count updates from here on; nothing is in flight."""
        self._made = 0

    def is_ahead(self, step: int) -> bool:
        """Tell if updates will be made before that of this step."""
        return step > self._made

    def add_gradients(self, samples: int, step_samples: int) -> None:
        """Take note that the gradients of some of the samples of a step were accumulated."""
        self._accumulated_samples += samples
        self._step_samples = step_samples

    @contextmanager
    def update(self, *, skipped: bool) -> Iterator[None]:
        """Take note that the accumulated gradients are consumed."""
        yield
        self._made += 1
        self._accumulated_samples = 0

    @contextmanager
    def update_from(self, stage: int) -> Iterator[None]:
        """Refuse: the optimizer of one stage knows nothing of another stage's weights."""
        raise RuntimeError(f"weights of stage {stage} cannot be predicted by SpecTrain's rule")
        yield

    @contextmanager
    def applied(self, step: int) -> Iterator[None]:
        """Surround a forward pass that is to run under the predicted weights.

        Where the next update is going to be skipped, these are the weights as they are.
        """
        groups = [] if self._is_to_be_skipped() else self._updates.optimizer.param_groups
        changes = []
        with self._updates.at_next_update():
            for group in groups:
                for parameter in group["params"]:
                    next_step = self._next_step(parameter, group)
                    if next_step is not None:
                        changes.append(([parameter], _subtracting(next_step)))
        with replaced_weights(changes, in_place=self._in_place):
            yield

    def saved(self) -> Mapping[nn.Parameter, Mapping[str, Tensor]]:
        """Return nothing: the optimizer's state says it all."""
        return {}

    def restore(self, saved: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
        """Do nothing."""

    def _is_to_be_skipped(self) -> bool:
        """Tell if a gradient that was accumulated for the next update is not finite."""
        if not self._skips or not self._accumulated_samples:
            return False
        parameters = (p for group in self._updates.optimizer.param_groups for p in group["params"])
        return not all(bool(p.grad.isfinite().all()) for p in parameters if p.grad is not None)

    def _next_step(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> Tensor | None:
        """Return eta (gamma v + mean gradient), or None where this is known to be 0."""
        velocity = self._updates.optimizer.state.get(parameter, {}).get("momentum_buffer")
        step: Tensor | None = None if velocity is None else velocity * group["momentum"]
        if self._accumulated_samples and parameter.grad is not None:
            # The accumulated gradients are weighted as parts of the mean over a whole step.
            mean = parameter.grad * (self._step_samples / self._accumulated_samples)
            step = mean if step is None else step.add_(mean)
        return None if step is None else step.mul_(group["lr"])


def _subtracting(step: Tensor) -> Any:
    def subtract(tensors: list[Tensor]) -> None:
        tensors[0].sub_(step)

    return subtract
