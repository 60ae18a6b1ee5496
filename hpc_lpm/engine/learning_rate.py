"""The learning rate as a function of an update's index alone.

Stages that update at different times therefore agree on the rate of every update without exchanging
messages.
"""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hpc_lpm.errors import InputError
from hpc_lpm.extensions import import_attribute
from hpc_lpm.options import LearningRateSettings
from hpc_lpm.user_functions import describe_raised, user_function

_KIND = "learning rate schedule"
_ACCEPTED = (
    "accepted are a function of (update, updates) that returns a factor, a subclass of "
    "torch.optim.lr_scheduler.LRScheduler, and a function of optimizer that returns a scheduler"
)


def build_scheduler(
    optimizer: torch.optim.Optimizer, settings: LearningRateSettings, updates: int
) -> LRScheduler:
    """Build the scheduler of the learning rate, which the runner steps after every update.

    Args:
        optimizer: the optimizer whose rate is set.
        settings: how the rate changes.
        updates: the number of updates of the whole run.

    Raises:
        InputError: if a schedule of the user's own cannot be made.
    """
    if settings.is_own:
        return _own_scheduler(optimizer, settings, updates)
    return LambdaLR(optimizer, lambda update: rate_factor(settings, update, updates))


def advance(scheduler: LRScheduler, updates: int) -> None:
    """Set the rates to those of so many updates later, without any update."""
    if type(scheduler) is not LambdaLR:
        with warnings.catch_warnings():
            # Of a step of the scheduler without one of the optimizer.
            warnings.simplefilter("ignore")
            for _ in range(updates):
                scheduler.step()
        return
    scheduler.last_epoch += updates
    groups = zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    )
    for group, rate, factor in groups:
        group["lr"] = rate * factor(scheduler.last_epoch)


def rate_factor(settings: LearningRateSettings, update: int, updates: int) -> float:
    """Return the factor that multiplies the optimizer's rate at one update.

    With w updates of warm-up the first w factors are 1/w, 2/w, ..., 1. After them `linear` and
    `cosine` (Loshchilov and Hutter, SGDR, 2017, without restarts) go from 1 towards the final
    factor, which they would reach at the update after the last one; `step` multiplies by its factor
    once for every milestone passed.

    Args:
        settings: the schedule and its warm-up.
        update: index of the update, counted from 0.
        updates: number of updates of the whole run, more than those of the warm-up.
    """
    warmup = settings.warmup_steps
    if update < warmup:
        return (update + 1) / warmup
    done = (update - warmup) / (updates - warmup)
    final = settings.final_factor
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 + (final - 1.0) * done
        case "cosine":
            return final + (1.0 - final) * (1.0 + math.cos(math.pi * done)) / 2.0
        case _:  # step
            passed = sum(milestone <= update for milestone in settings.milestones)
            return math.prod([settings.factor] * passed)


def _own_scheduler(
    optimizer: torch.optim.Optimizer, settings: LearningRateSettings, updates: int
) -> LRScheduler:
    name = settings.schedule
    module, _, attribute = name.partition(":")
    found = import_attribute(_KIND, name, module, attribute)
    if isinstance(found, type):
        if not issubclass(found, LRScheduler):
            raise InputError(f"{_KIND} {name!r} is a class of another kind, {_ACCEPTED}.")
        make: Callable[..., object] = _guarded(name, found)
    else:
        make = user_function(_KIND, name, found, "update, updates", "a factor on the rate")
    arguments: dict[str, Any] = dict(settings.options)
    taken = _parameter_names(make)
    if taken[:1] != ["optimizer"] and not isinstance(found, type):
        return LambdaLR(optimizer, lambda update: _factor(name, make, update, updates, arguments))
    if "updates" in taken:
        arguments["updates"] = updates
    scheduler = make(optimizer, **arguments)
    if not isinstance(scheduler, LRScheduler):
        raise InputError(f"{_KIND} {name!r} returned {type(scheduler).__name__}, {_ACCEPTED}.")
    if any(
        parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        for parameter in inspect.signature(scheduler.step).parameters.values()
    ):
        raise InputError(
            f"{_KIND} {name!r} takes a metric at every step, which stages do not have when they "
            "update: use one that depends on the number of the update alone."
        )
    return scheduler


def _parameter_names(function: Callable[..., object]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # a builtin without a signature
        return []


def _factor(
    name: str, make: Callable[..., object], update: int, updates: int, options: dict[str, Any]
) -> float:
    # Schedulers ask once more after the last update.
    factor = make(min(update, updates - 1), updates, **options)
    try:
        return float(factor)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(
            f"{_KIND} {name!r} returned {type(factor).__name__} for update {update}, accepted is "
            "a number by which the rate is multiplied."
        ) from None


def _guarded(name: str, found: type[LRScheduler]) -> Callable[..., object]:
    def make(optimizer: torch.optim.Optimizer, **options: Any) -> LRScheduler:
        try:
            return found(optimizer, **options)
        except Exception as error:
            raise InputError(
                f"{_KIND} {name!r} raises {describe_raised(error)}: give its arguments by "
                "--lr-schedule-option NAME=VALUE."
            ) from error

    make.__signature__ = inspect.signature(found)  # type: ignore[attr-defined]
    return make
