"""Builds and checks the torch optimizer that the settings name."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from hpc_lpm.engine.learning_rate import rate_factor
from hpc_lpm.engine.parameter_groups import ALL_ALIKE, Group, GroupedParameters
from hpc_lpm.errors import InputError, closest, look_up
from hpc_lpm.options import LearningRateSettings, OptimizerSettings

_SHORT_NAMES: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}

_IMPOSSIBLE = {
    "lbfgs": "it runs forward and backward again within an update, which a pipeline cannot do",
    "sparseadam": "it only takes sparse gradients, and the layers here have dense ones",
    "muon": "it only takes matrices, and layers have biases and other parameters too",
}
"""The optimizers of torch that cannot train here, in lower case, with the reason."""


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    settings: OptimizerSettings,
    groups: GroupedParameters = ALL_ALIKE,
) -> torch.optim.Optimizer:
    """Build the optimizer of one rank's parameters, which may be none at all.

    Args:
        parameters: what it updates.
        settings: name the optimizer.
        groups: which parameters have a rate or a weight decay of their own.

    Raises:
        InputError: if no optimizer has that name.
    """
    owned = list(parameters) or [nn.Parameter(torch.zeros(0))]
    chosen = _class_named(settings.name)
    arguments: dict[str, Any] = {"lr": settings.lr}
    if "weight_decay" in _arguments_of(chosen):
        arguments["weight_decay"] = settings.weight_decay
    if settings.name.lower() == "momentum":
        arguments["momentum"] = settings.momentum
    arguments.update(settings.options)
    return chosen(_as_groups(groups.divide(owned), settings), **arguments)


def _as_groups(
    divided: Mapping[Group, list[nn.Parameter]], settings: OptimizerSettings
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """Return parameters as torch takes them: the plain list where all are of the usual group."""
    if list(divided) == [Group()]:
        return divided[Group()]
    made = []
    for group, parameters in divided.items():
        entry: dict[str, Any] = {"params": parameters}
        if group.lr_scale != 1.0:
            entry["lr"] = settings.lr * group.lr_scale
        if not group.decays:
            entry["weight_decay"] = 0.0
        made.append(entry)
    return made


def build_scheduler(
    optimizer: torch.optim.Optimizer, settings: LearningRateSettings, updates: int
) -> LambdaLR:
    """Build the scheduler of the learning rate, which the runner steps after every update.

    Args:
        optimizer: the optimizer whose rate is set.
        settings: how the rate changes.
        updates: the number of updates of the whole run.
    """
    return LambdaLR(optimizer, lambda update: rate_factor(settings, update, updates))


class GroupRates:
    """The learning rates of groups of parameters at every update of a run.

    They are those of an optimizer of tiny parameters, one a group, which is not updated.

    Args:
        optimizer: the optimizer of the run.
        schedule: how the rates change.
        groups: the groups, in the order of the rates.
        updates: the number of updates of the whole run.
    """

    def __init__(
        self,
        optimizer: OptimizerSettings,
        schedule: LearningRateSettings,
        groups: Sequence[Group],
        updates: int,
    ) -> None:
        self._settings = optimizer, schedule, updates
        self._groups = groups
        self._begin()

    def _begin(self) -> None:
        optimizer, schedule, updates = self._settings
        tiny = {nn.Parameter(torch.zeros(1)): group for group in self._groups}
        self._optimizer = build_optimizer(tiny, optimizer, GroupedParameters(tiny))
        self._scheduler = build_scheduler(self._optimizer, schedule, updates)

    def at(self, update: int) -> list[float]:
        """Return the rate of each group at one update, counted from 0."""
        if update < self._scheduler.last_epoch:
            self._begin()
        advance(self._scheduler, update)
        return [float(group["lr"]) for group in self._optimizer.param_groups]


def advance(scheduler: LambdaLR, update: int) -> None:
    """Set the rates to those of an update at which the scheduler is or to which it comes."""
    scheduler.last_epoch = update
    groups = zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    )
    for group, rate, factor in groups:
        group["lr"] = rate * factor(update)


def clip_gradients(parameters: Iterable[nn.Parameter], norm: float | None) -> None:
    """Scale the gradients so that their joint 2-norm is at most `norm`; None leaves them alone."""
    if norm is not None:
        nn.utils.clip_grad_norm_(parameters, norm)


def check_optimizer(settings: OptimizerSettings) -> None:
    """Check the optimizer's name, and its options by a trial update of a tiny parameter.

    Raises:
        InputError: if the optimizer does not exist, cannot train here or refuses an option.
    """
    chosen = _class_named(settings.name)
    reserved = {"lr", "weight_decay", *(["momentum"] if chosen is torch.optim.SGD else [])}
    accepted = [name for name in _arguments_of(chosen) if name not in reserved]
    for option in settings.options:
        if option not in accepted:
            own = ", a setting of its own" if option in reserved else closest(option, accepted)
            raise InputError(
                f"optimizer {settings.name!r} has no option {option!r}{own}: "
                f"accepted are {', '.join(accepted)}."
            )
    if settings.weight_decay and "weight_decay" not in _arguments_of(chosen):
        raise InputError(
            f"optimizer {settings.name!r} has no weight decay, found {settings.weight_decay:g}: "
            "set it to 0 or choose another optimizer."
        )
    if settings.no_decay and not settings.weight_decay:
        raise InputError(
            "--no-decay was given, but --weight-decay is 0, so that nothing decays: give the "
            "weight decay of the other parameters, or leave --no-decay out."
        )
    if not settings.options:
        return
    tiny = nn.Parameter(torch.zeros(2, 2))
    tiny.grad = torch.zeros_like(tiny)
    try:
        build_optimizer([tiny], settings).step()
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        given = ", ".join(f"{name}={value}" for name, value in settings.options.items())
        raise InputError(
            f"optimizer {settings.name!r} refuses its options {given} ({reason}): change them."
        ) from None


def _class_named(name: str) -> type[torch.optim.Optimizer]:
    if reason := _IMPOSSIBLE.get(name.lower()):
        raise InputError(f"optimizer {name!r} cannot be used: {reason}: choose another one.")
    accepted = {**_SHORT_NAMES, **_classes_of_torch()}
    for spelling, found in accepted.items():
        if spelling.lower() == name.lower():
            return found
    return look_up("optimizer", name, accepted)


def _classes_of_torch() -> dict[str, type[torch.optim.Optimizer]]:
    return {
        name: value
        for name, value in sorted(vars(torch.optim).items())
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
        and name.lower() not in _IMPOSSIBLE
        and name.lower() not in _SHORT_NAMES
    }


def _arguments_of(chosen: type[torch.optim.Optimizer]) -> list[str]:
    return [name for name in inspect.signature(chosen).parameters if name != "params"]
