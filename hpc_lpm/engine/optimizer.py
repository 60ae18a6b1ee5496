"""Builds the optimizer that the settings name: one of torch, or one of the user's own."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from torch import nn

from hpc_lpm.engine.learning_rate import advance, build_scheduler
from hpc_lpm.engine.muon import MuonAndAdamW
from hpc_lpm.engine.parameter_groups import ALL_ALIKE, Group, GroupedParameters
from hpc_lpm.errors import InputError
from hpc_lpm.extensions import import_attribute
from hpc_lpm.optimizer_names import check_optimizer_name, classes_of_torch, is_own
from hpc_lpm.options import LearningRateSettings, OptimizerSettings
from hpc_lpm.user_functions import user_function

_SHORT_NAMES: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "muon": MuonAndAdamW,
}

_USUAL_RATES = {"adam": 0.001, "adamw": 0.001, "muon": 0.003}
"""The learning rates with which our models learn from the first steps on, where 0.1 is too much."""


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
    chosen = optimizer_named(settings.name)
    arguments: dict[str, Any] = {"lr": settings.lr}
    # An argument that is not named may be taken by `**options`.
    if "weight_decay" in arguments_of(chosen) or settings.weight_decay:
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
        if group.hidden_matrices:
            entry["hidden_matrices"] = True
        made.append(entry)
    return made


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
        self._update = 0

    def at(self, update: int) -> list[float]:
        """Return the rate of each group at one update, counted from 0."""
        if update < self._update:
            self._begin()
        advance(self._scheduler, update - self._update)
        self._update = update
        return [float(group["lr"]) for group in self._optimizer.param_groups]


def optimizer_named(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimizer of torch, or what makes one of the user's own.

    Raises:
        InputError: if there is none of that name, or it cannot train here.
    """
    if is_own(name):
        return _own(name)
    check_optimizer_name(name)
    accepted = {**_SHORT_NAMES, **classes_of_torch()}
    return next(found for known, found in accepted.items() if known.lower() == name.lower())


def usual_rate(name: str) -> float:
    """Return the learning rate to begin with where none is given.

    That is the default of the settings for `sgd` and `momentum`, and of all others that the toolkit
    does not know by a short name the default of their class.

    Raises:
        InputError: as `optimizer_named`.
    """
    chosen, short, settled = optimizer_named(name), name.lower(), OptimizerSettings().lr
    if short in _SHORT_NAMES:
        return _USUAL_RATES.get(short, settled)
    default = inspect.signature(chosen).parameters.get("lr")
    usual = None if default is None else default.default
    return float(usual) if isinstance(usual, int | float) and usual > 0 else settled


def _own(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return the user's class, or a function that calls the user's.

    Raises:
        InputError: if the name refers to anything else, or cannot be imported.
    """
    module, _, attribute = name.partition(":")
    found = import_attribute("optimizer", name, module, attribute)
    if isinstance(found, type):
        if not issubclass(found, torch.optim.Optimizer):
            raise InputError(
                f"optimizer {name!r} is a class of another kind, accepted are a subclass of "
                "torch.optim.Optimizer and a function of (params, lr) that makes one."
            )
        return found
    make = user_function("optimizer", name, found, "params, lr", "a torch.optim.Optimizer")

    @wraps(make)
    def checked(*arguments: object, **options: object) -> torch.optim.Optimizer:
        made = make(*arguments, **options)
        if not isinstance(made, torch.optim.Optimizer):
            raise InputError(
                f"optimizer {name!r} returned {type(made).__name__}, accepted is a "
                "torch.optim.Optimizer."
            )
        return made

    return checked


def arguments_of(optimizer: Callable[..., torch.optim.Optimizer]) -> list[str]:
    """Return the names of the arguments of an optimizer behind its parameters."""
    return [parameter.name for parameter in _behind_parameters(optimizer) if _is_named(parameter)]


def takes_any_argument(optimizer: Callable[..., torch.optim.Optimizer]) -> bool:
    """Tell if an optimizer takes arguments that it does not name, as `**options`."""
    return any(each.kind is each.VAR_KEYWORD for each in _behind_parameters(optimizer))


def _behind_parameters(
    optimizer: Callable[..., torch.optim.Optimizer],
) -> list[inspect.Parameter]:
    return list(inspect.signature(optimizer).parameters.values())[1:]


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
