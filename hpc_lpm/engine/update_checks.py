"""Checks what is to update the weights before anything is trained, by trial where that is needed.

An optimizer or a schedule of learning rates of the user's own must do what every strategy relies
on: stages update at different times, each with an optimizer of its own, and runs are resumed.
"""

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from hpc_lpm.engine.checkpoint.tensors import optimizer_state, restore_optimizer
from hpc_lpm.engine.learning_rate import build_scheduler
from hpc_lpm.engine.muon import is_muon
from hpc_lpm.engine.optimizer import (
    GroupRates,
    arguments_of,
    build_optimizer,
    optimizer_named,
    takes_any_argument,
)
from hpc_lpm.engine.parameter_groups import Group, GroupedParameters
from hpc_lpm.engine.runners.runner import TrainedState
from hpc_lpm.errors import InputError, closest
from hpc_lpm.optimizer_names import is_own
from hpc_lpm.options import LearningRateSettings, OptimizerSettings
from hpc_lpm.random_streams import generators_kept
from hpc_lpm.user_functions import describe_raised

_TRIAL_UPDATES = 3
_UNKNOWN_UPDATES = 100
"""The updates of a run of unknown length, as a schedule of the user's own is told in a check."""


def check_optimizer(settings: OptimizerSettings) -> None:
    """Check the optimizer's name, and its options by a trial update of a tiny parameter.

    One of the user's own is also tried on what every strategy relies on.

    Raises:
        InputError: if the optimizer does not exist, cannot train here or refuses an option.
    """
    chosen = optimizer_named(settings.name)
    reserved = {"lr", "weight_decay", *(["momentum"] if chosen is torch.optim.SGD else [])}
    accepted = [name for name in arguments_of(chosen) if name not in reserved]
    anything = takes_any_argument(chosen)
    for option in settings.options:
        if option in reserved or not (option in accepted or anything):
            own = ", a setting of its own" if option in reserved else closest(option, accepted)
            raise InputError(
                f"optimizer {settings.name!r} has no option {option!r}{own}: "
                f"accepted are {', '.join(accepted)}."
            )
    _check_types(settings, chosen)
    if "lr" not in arguments_of(chosen) and not anything:
        raise InputError(
            f"optimizer {settings.name!r} takes no lr: give it an argument of that name, which is "
            "set to the learning rate."
        )
    if settings.weight_decay and "weight_decay" not in arguments_of(chosen) and not anything:
        raise InputError(
            f"optimizer {settings.name!r} has no weight decay, found {settings.weight_decay:g}: "
            "set it to 0 or choose another optimizer."
        )
    if settings.no_decay and not settings.weight_decay:
        raise InputError(
            "--no-decay was given, but --weight-decay is 0, so that nothing decays: give the "
            "weight decay of the other parameters, or leave --no-decay out."
        )
    if is_own(settings.name):
        with generators_kept():
            _try_own(settings)
    elif settings.options:
        _try_options(settings)


def _check_types(settings: OptimizerSettings, chosen: Callable[..., object]) -> None:
    """Check options by the type of their defaults: torch takes any text for true."""
    parameters = inspect.signature(chosen).parameters
    for option, value in settings.options.items():
        default = parameters[option].default if option in parameters else None
        wanted = None
        if isinstance(default, bool):
            wanted = None if isinstance(value, bool) else "true or false"
        elif isinstance(default, int | float):
            wanted = "a number" if isinstance(value, bool | str) else None
        elif isinstance(default, tuple):
            wanted = None if isinstance(value, tuple) else "several numbers, such as 0.9,0.99"
        if wanted is not None:
            raise InputError(
                f"option {option!r} of optimizer {settings.name!r} is {value!r}, accepted is "
                f"{wanted}."
            )


def _try_options(settings: OptimizerSettings) -> None:
    tiny = {nn.Parameter(torch.zeros(2, 2)): group for group in _kinds_of_groups(settings)}
    for parameter in tiny:
        parameter.grad = torch.zeros_like(parameter)
    try:
        build_optimizer(tiny, settings, GroupedParameters(tiny)).step()
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        given = ", ".join(f"{name}={value}" for name, value in settings.options.items())
        raise InputError(
            f"optimizer {settings.name!r} refuses its options {given} ({reason}): change them."
        ) from None


def _kinds_of_groups(settings: OptimizerSettings) -> list[Group]:
    return [Group(), *([Group(hidden_matrices=True)] if is_muon(settings.name) else [])]


def check_apart(settings: OptimizerSettings) -> None:
    """Check that an optimizer of the user's own updates a parameter alone as it does among others.

    Raises:
        InputError: if not, since stages would then train another function than one device.
    """
    if not is_own(settings.name):
        return
    with generators_kept():
        together = _Trial(settings)
        alone = [_Trial(settings, [place]) for place in range(len(together.parameters))]
        together.update(_TRIAL_UPDATES)
        try:
            for each in alone:
                each.update(_TRIAL_UPDATES)
        except Exception as error:
            raise InputError(
                f"optimizer {settings.name!r} raises {describe_raised(error)} where it has a "
                "single parameter, or none with a gradient, as a stage may: let step() do nothing "
                "where nothing is to be done."
            ) from error
    if any(
        not torch.equal(parameter, each.parameters[0])
        for parameter, each in zip(together.parameters, alone, strict=True)
    ):
        raise InputError(
            f"optimizer {settings.name!r} updates a parameter otherwise where others are with it, "
            "but each stage has an optimizer of its own parameters: use --strategy sequential or "
            "horovod, or an optimizer that looks at each parameter alone and draws no random "
            "numbers."
        )


def check_rebuilt(settings: OptimizerSettings) -> None:
    """Check that an optimizer of the user's own updates as before if it is made from its groups.

    Raises:
        InputError: if not; Horovod makes it anew so.
    """
    if not is_own(settings.name):
        return
    with generators_kept():
        trial, anew = _Trial(settings), _Trial(settings)
        try:
            anew.optimizer = type(anew.optimizer)(anew.optimizer.param_groups)  # type: ignore[call-arg]
            anew.update(_TRIAL_UPDATES)
            problem = ""
        except Exception as error:
            problem = f" ({describe_raised(error)})"
        trial.update(_TRIAL_UPDATES)
    if problem or not trial.equals(anew):
        raise InputError(
            f"optimizer {settings.name!r} cannot be used with --strategy horovod, which makes it "
            f"anew from its param_groups alone{problem}: give all of its arguments defaults, and "
            "read their values from the groups, as torch's optimizers do."
        )


def check_by_rows(settings: OptimizerSettings, strategy: str) -> None:
    """Check that an optimizer updates the rows of a parameter apart as it does together.

    Raises:
        InputError: if not, since ranks that hold some rows each would then train another function.
    """
    remedy = f"--strategy {strategy} gives each rank some rows of every parameter"
    if is_muon(settings.name):
        raise InputError(
            f"optimizer {settings.name!r} updates a matrix as a whole, but {remedy}: use another "
            "optimizer, or another strategy."
        )
    with generators_kept():
        together, apart = _Trial(settings, [0]), _Trial(settings, [0])
        whole = apart.parameters[0]
        rows = [nn.Parameter(whole.detach()[:2].clone()), nn.Parameter(whole.detach()[2:].clone())]
        for group in apart.optimizer.param_groups:
            group["params"] = rows
        try:
            for _ in range(_TRIAL_UPDATES):
                together.update(1)
                gradient = together.parameters[0].grad
                assert gradient is not None
                rows[0].grad, rows[1].grad = gradient[:2].clone(), gradient[2:].clone()
                apart.optimizer.step()
        except Exception as error:
            raise InputError(
                f"optimizer {settings.name!r} raises {describe_raised(error)} where other "
                f"parameters take the place of those in its param_groups, but {remedy}: let it "
                "update what is there, or use another strategy."
            ) from error
    kept = all(
        not isinstance(value, torch.Tensor) or value.shape in (row.shape, torch.Size())
        for row in rows
        for value in apart.optimizer.state.get(row, {}).values()
    )
    if not kept or not torch.equal(
        together.parameters[0], torch.cat([row.detach() for row in rows])
    ):
        raise InputError(
            f"optimizer {settings.name!r} updates the rows of a parameter otherwise where they are "
            f"apart, but {remedy}: use another optimizer, or another strategy."
        )


class _Trial:
    """Some tiny parameters with an optimizer; the last parameter never has a gradient."""

    def __init__(self, settings: OptimizerSettings, chosen: Sequence[int] = (0, 1, 2)) -> None:
        torch.manual_seed(0)
        every = [torch.randn(3, 2), torch.randn(2), torch.randn(2)]
        self.module = nn.ParameterList([every[place] for place in chosen])
        self.parameters = list(self.module.parameters())
        self._places = list(chosen)
        self.optimizer = build_optimizer(self.parameters, settings)
        self.updates = 0

    def update(self, times: int) -> None:
        for _ in range(times):
            torch.manual_seed(1 + self.updates)
            gradients = [torch.randn(3, 2), torch.randn(2), None]
            for place, parameter in zip(self._places, self.parameters, strict=True):
                parameter.grad = gradients[place]
            self.optimizer.step()
            self.updates += 1

    def state(self) -> TrainedState:
        scheduler = build_scheduler(self.optimizer, LearningRateSettings(), _TRIAL_UPDATES)
        return TrainedState({0: self.module}, self.optimizer, scheduler)

    def equals(self, other: "_Trial") -> bool:
        pairs = zip(self.parameters, other.parameters, strict=True)
        return all(torch.equal(one, another) for one, another in pairs)


def _try_own(settings: OptimizerSettings) -> None:
    """Try an optimizer of the user's own.

    Raises:
        InputError: if it fails, or does not do what every strategy relies on.
    """
    name = settings.name
    try:
        whole = _Trial(settings)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"optimizer {name!r} raises {describe_raised(error)}: it is made with the parameters, "
            "lr and the arguments of --optimizer-option."
        ) from error
    if callable(getattr(whole.optimizer, "eval", None)):
        raise InputError(
            f"optimizer {name!r} has a method eval, which changes the weights for evaluations, but "
            "nothing here calls it: use an optimizer without."
        )
    try:
        whole.update(_TRIAL_UPDATES)
    except Exception as error:
        raise InputError(
            f"optimizer {name!r} raises {describe_raised(error)} in a trial of step(): it is "
            "called without a closure, and parameters of any shape may be without a gradient."
        ) from error
    stopped, resumed = _Trial(settings), _Trial(settings)
    stopped.update(_TRIAL_UPDATES - 1)
    tensors, values = optimizer_state(stopped.state())
    kept = all(
        isinstance(value, bool | int | float | None)
        for of_parameter in values.values()
        for value in of_parameter.values()
    )
    with torch.no_grad():
        for parameter, trained in zip(resumed.parameters, stopped.parameters, strict=True):
            parameter.copy_(trained)
    restore_optimizer(resumed.state(), lambda layer: (tensors, values), 0)
    resumed.updates = stopped.updates
    resumed.update(1)
    if not kept or not resumed.equals(whole):
        raise InputError(
            f"optimizer {name!r} cannot be resumed, since it remembers more than what it has in "
            "self.state: let it keep there, by parameter, tensors and numbers alone."
        )


def check_schedule(
    optimizer: OptimizerSettings,
    settings: LearningRateSettings,
    updates: int | None,
    *,
    scaled: bool,
) -> None:
    """Check a schedule of the user's own by all rates that it gives, twice.

    Args:
        optimizer: the optimizer of the run.
        settings: name the schedule.
        updates: the updates of the whole run, None if they are not known yet.
        scaled: whether some parameters or stages are to have another rate than others.

    Raises:
        InputError: if it fails, gives what is no rate, or other rates the second time.
    """
    if not settings.is_own:
        return
    name = f"learning rate schedule {settings.schedule!r}"
    try:
        _check_rates(name, optimizer, settings, updates, scaled=scaled)
    except InputError:
        raise
    except Exception as error:
        within = "at the first update" if updates is None else f"within the {updates} updates"
        raise InputError(
            f"{name} raises {describe_raised(error)} {within} of the run: give it arguments for "
            "that length by --lr-schedule-option NAME=VALUE."
        ) from error


def _check_rates(
    name: str,
    optimizer: OptimizerSettings,
    settings: LearningRateSettings,
    updates: int | None,
    *,
    scaled: bool,
) -> None:
    length = _UNKNOWN_UPDATES if updates is None else updates
    groups = [Group(), Group(0.5)]
    once, again = (GroupRates(optimizer, settings, groups, length) for _ in range(2))
    alike = True
    # What is set after the last update is never used, but must not fail.
    for update in range(1 if updates is None else updates + 1):
        rates = once.at(update)
        usable = all(math.isfinite(rate) and rate >= 0 for rate in rates)
        if not usable and update != updates:
            raise InputError(
                f"{name} gives the rate {rates[0]} for update {update}, accepted are finite "
                "numbers from 0."
            )
        if again.at(update) != rates:
            raise InputError(
                f"{name} gives other rates when it is asked again, but stages ask at different "
                "times: let it depend on the number of the update alone."
            )
        alike = alike and rates[0] == rates[-1]
    if scaled and alike:
        raise InputError(
            f"{name} gives all parameters the same rate, whatever theirs is by --lr-scale or "
            "--lr-discount: leave these out, or use a schedule that multiplies rates."
        )
