"""What updates the weights of one rank: an optimizer, its learning rates, and groups of parameters.

A run's settings describe all three; a script makes its optimizer itself, and sets the rates.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from hpc_lpm.engine.job import Job
from hpc_lpm.engine.learning_rate import build_scheduler
from hpc_lpm.engine.optimizer import build_optimizer
from hpc_lpm.engine.parameter_groups import GroupedParameters, group_parameters
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.options import LearningRateSettings, OptimizerSettings

Wrap = Callable[[torch.optim.Optimizer], torch.optim.Optimizer]


def as_it_is(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer itself."""
    return optimizer


@dataclass(frozen=True)
class Updates:
    """What updates the weights of one rank; the scheduler is stepped after every update.

    `at_next_update` surrounds what needs the optimizer's settings as they are in its next update.
    """

    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    groups: GroupedParameters
    at_next_update: Callable[[], AbstractContextManager[None]] = nullcontext


class Updating(Protocol):
    """Makes what updates the weights of a rank."""

    def build(
        self,
        parameters: Sequence[nn.Parameter],
        layers: Mapping[int, nn.Module],
        *,
        rate_divisor: float = 1.0,
        wrap: Wrap = as_it_is,
    ) -> Updates:
        """Make what updates these parameters (collective).

        Args:
            parameters: those that this rank updates, which may be none at all.
            layers: the layers that this rank holds, by their index in the model.
            rate_divisor: what every learning rate is divided by.
            wrap: makes of the optimizer the one that is used instead.
        """


@dataclass(frozen=True)
class UpdatingBySettings:
    """Makes what the settings of a run describe.

    Args:
        model: whose parameters are updated.
        optimizer: names the optimizer and the groups of parameters.
        learning_rate: how the rate changes.
        updates: the number of updates of the whole run.
        job: the ranks.
    """

    model: LayeredModel
    optimizer: OptimizerSettings
    learning_rate: LearningRateSettings
    updates: int
    job: Job

    def build(
        self,
        parameters: Sequence[nn.Parameter],
        layers: Mapping[int, nn.Module],
        *,
        rate_divisor: float = 1.0,
        wrap: Wrap = as_it_is,
    ) -> Updates:
        """Make what updates these parameters (collective).

        Raises:
            InputError: if there is no such optimizer or schedule, or, on every rank, if a pattern
                of the settings chooses no parameter at all.
        """
        groups = group_parameters(self.model, layers, self.optimizer, self.job)
        settings = self.optimizer
        if rate_divisor != 1.0:
            settings = settings.model_copy(update={"lr": settings.lr / rate_divisor})
        optimizer = wrap(build_optimizer(parameters, settings, groups))
        return Updates(
            optimizer, build_scheduler(optimizer, self.learning_rate, self.updates), groups
        )
