"""Two remedies for weights that lag: to predict them, and to lower the learning rate.

*Prediction* runs the forward pass of a lagged micro-batch under a guess of the weights that its
backward pass will meet, as SpecTrain does (Chen et al. 2018). The guess is one step of SGD with
momentum: W - eta (gamma v + mean of the gradients accumulated so far).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hpc_lpm.engine.pipeline.options import LaggingOptions
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.topology import PipelineTopology
from hpc_lpm.schedules.registry import schedule_named


class PredictedWeights:
    """Predicts the weights of one stage from its optimizer and its accumulated gradients.

    The prediction leaves weight decay out. During a forward pass under predicted weights the
    weights are held twice in memory, and one of their tensors three times.

    Args:
        optimizer: torch's SGD, with or without momentum, of the stage's parameters.
        in_place: True if a graph that is built under the prediction is to read the parameters' own
            memory, with whatever it holds later; False if it keeps the prediction, a copy of the
            weights that lives as long as the graph.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, in_place: bool) -> None:
        self._optimizer = optimizer
        self._in_place = in_place
        self._accumulated_samples = 0
        self._step_samples = 0

    def add_gradients(self, samples: int, step_samples: int) -> None:
        """Take note that the gradients of some of the samples of a step were accumulated."""
        self._accumulated_samples += samples
        self._step_samples = step_samples

    def clear_gradients(self) -> None:
        """Take note that an update has consumed the accumulated gradients."""
        self._accumulated_samples = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Surround a forward pass that is to run under the predicted weights."""
        changed = []
        try:
            for group in self._optimizer.param_groups:
                for parameter in group["params"]:
                    if (step := self._next_step(parameter, group)) is not None:
                        own = parameter.data
                        changed.append((parameter, own.clone() if self._in_place else own))
                        if self._in_place:
                            # Through `.data`: graphs in flight refuse changes that autograd counts.
                            own.sub_(step)
                        else:
                            parameter.data = own - step
            yield
        finally:
            for parameter, own in changed:
                if self._in_place:
                    parameter.data.copy_(own)
                else:
                    parameter.data = own

    @torch.no_grad()
    def _next_step(self, parameter: Tensor, group: dict[str, float]) -> Tensor | None:
        """Return eta (gamma v + mean gradient), or None where this is known to be 0."""
        velocity = self._optimizer.state.get(parameter, {}).get("momentum_buffer")
        step = None if velocity is None else velocity * group["momentum"]
        if self._accumulated_samples and parameter.grad is not None:
            # The accumulated gradients are weighted as parts of the mean over a whole step.
            mean = parameter.grad * (self._step_samples / self._accumulated_samples)
            step = mean if step is None else step.add_(mean)
        return None if step is None else step.mul_(group["lr"])


def rate_divisor(settings: TrainSettings, topology: PipelineTopology) -> float:
    """Return what the learning rate of one stage is divided by, for its lag, if that was asked for.

    That is max(1, d_k / M): d_k is the delay of the stage's weight versions in micro-batches and M
    the micro-batches of an optimizer step, so that d_k / M is the mean lag in updates.
    """
    own = LaggingOptions.of(settings.own)
    if not own.lr_discount:
        return 1.0
    delay = schedule_named(settings.strategy).version_delay(
        topology.stage,
        topology.stages,
        settings.micro_batches,
        own.lead,
        replicas=topology.replicas,
    )
    return max(1.0, delay / settings.micro_batches)
