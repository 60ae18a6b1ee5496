"""The subject of advice: a model, its data, and the settings that all strategies would share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.lone_crossings import with_lone_crossings
from hpc_lpm.engine.settings import TrainSettings, checked_settings
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.engine.strategies.registry import DEFAULT_STRATEGY, strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import example_input
from hpc_lpm.planning.forecast.case import Case
from hpc_lpm.planning.forecast.forecast import Forecast
from hpc_lpm.planning.options import planned_optimizer
from hpc_lpm.profile_file import Profile

_STEPS = 1
"""The length of the runs whose settings are checked: advice does not depend on it."""


@dataclass(frozen=True)
class Subject:
    """A model to train, and the settings of its runs that are the same under every strategy.

    Attributes:
        model: the model.
        shared: settings by name, `model` and `dataset` among them.
    """

    model: LayeredModel
    shared: dict[str, Any]

    @property
    def planned_optimizer(self) -> str:
        """The name by which plans know what memory the optimizer's state takes."""
        return planned_optimizer(self.settings(strategy_named(DEFAULT_STRATEGY)).optimizer)

    def settings(self, strategy: Strategy, forecast: Forecast | None = None) -> TrainSettings:
        """Return the settings of a run of `strategy`, in the way that `forecast` is about.

        Raises:
            InputError: if a setting is not accepted.
        """
        chosen: dict[str, Any] = {"micro_batches": 1}
        if forecast is not None:
            own = own_options(strategy, forecast)
            chosen = {**own, "micro_batches": forecast.micro_batches}
        return checked_settings(
            **self.shared, **chosen, strategy=strategy.name, steps=_STEPS, epochs=None
        )

    def with_lone_crossings(self, case: Case) -> Case:
        """Return a case of this model with cuts only where exactly one tensor that learns crosses.

        Raises:
            InputError: naming the first layer that fails on samples like those of the data set.
        """
        settings = self.settings(strategy_named(DEFAULT_STRATEGY))
        shape = dataset_shape(settings.dataset, settings.data_dir)
        inputs = example_input(shape)
        return replace(case, profiles=with_lone_crossings(case.profiles, self.model, inputs))

    def check_profiles(self, profiles: Sequence[Profile]) -> None:
        """Check that profiles are of this model's layers, each at another micro-batch.

        Raises:
            InputError: naming what differs.
        """
        names = [layer.name for layer in self.model.layers]
        sizes = [profile.micro_batch for profile in profiles]
        if len(set(sizes)) < len(sizes):
            raise InputError(
                f"--profile is given for micro-batches of {', '.join(map(str, sizes))} samples: "
                "give one for each size."
            )
        for profile in profiles:
            found = [layer.name for layer in profile.layers]
            if found != names:
                raise InputError(
                    f"--profile is of {profile.model} with {_layers(found)}, but "
                    f"{self.model.name} has {_layers(names)}: give a profile of this model, or "
                    "leave --profile out to have it profiled."
                )


def own_options(strategy: Strategy, forecast: Forecast) -> dict[str, Any]:
    """Return the options of a forecast that a strategy takes, but for those at their defaults."""
    fields = strategy.options.model_fields
    return {
        name: value
        for name, value in forecast.options.items()
        if name in fields and value != fields[name].default
    }


def _layers(names: Sequence[str]) -> str:
    count = f"{len(names)} layer{'s' * (len(names) != 1)}"
    return f"{count} ({names[0]} to {names[-1]})"
