"""What may be tried of a contestant: values of its own options, and ways to start its ranks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import (
    Contestant,
    contestant_cut_into,
    contestant_replicas,
    contestant_settings,
    contestant_stages,
    contestant_tuning,
)
from hpc_lpm.cluster.launchers import LAUNCHERS
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.errors import InputError, closest
from hpc_lpm.options import RunOptions

MOST_CANDIDATES = 24
"""The most that are tried of one contestant: further ones would only be less promising."""

_STYLE = "launch style"


@dataclass(frozen=True)
class Candidate:
    """Settings of a contestant that may be the best ones.

    Attributes:
        options: the settings in which it differs from the contestant, by name.
        style: how its ranks are started, None for the usual way.
    """

    options: Mapping[str, Any]
    style: str | None = None

    def of(self, contestant: Contestant) -> Contestant:
        """Return the contestant with these options."""
        return replace(contestant, overrides={**contestant.overrides, **self.options})


def candidates_of(campaign: Campaign, contestant: Contestant) -> list[Candidate]:
    """Return what may be tried of a contestant, the most promising first.

    The first is the contestant as it is. What the campaign sets, for all or for this contestant,
    stays as it is set. Settings that the strategy refuses are left out.

    Raises:
        InputError: if the contestant itself is refused, or its strategy offers what it does not
            have.
    """
    usual = contestant_settings(campaign, contestant)
    set_already = {*contestant.overrides, *campaign.own, *campaign.set_shared}
    axes: dict[str, list[Any]] = {}
    for name, values in contestant.entry.tunable(usual).items():
        if name not in set_already:
            first = _value(contestant, usual, name)
            axes[name] = [first, *(value for value in values if value != first)]
    launcher, devices = campaign.launcher, contestant_stages(campaign, contestant)
    together = contestant.entry.processes(usual, devices) > 1
    if together and launcher.options is None:
        axes[_STYLE] = [None, *LAUNCHERS[launcher.mpi].styles]
    found: list[Candidate] = []
    for places in _by_promise([len(values) for values in axes.values()]):
        chosen = {
            name: values[place]
            for (name, values), place in zip(axes.items(), places, strict=True)
            if place
        }
        style = chosen.pop(_STYLE, None)
        candidate = Candidate(chosen, style)
        if not any(places) or _accepted(campaign, candidate.of(contestant), devices):
            found.append(candidate)
    return found[:MOST_CANDIDATES]


def candidates_for(campaign: Campaign, contestant: Contestant, layers: int) -> list[Candidate]:
    """Return what may be tried of a contestant on a model of so many layers.

    Left out are candidates that cut the model into more stages than it has layers.

    Raises:
        InputError: as `candidates_of`.
    """
    usual, *others = candidates_of(campaign, contestant)
    devices, entry = contestant_cut_into(campaign, contestant), contestant.entry
    return [
        usual,
        *(
            each
            for each in others
            if not entry.needs_plan
            or entry.stages_on(contestant_settings(campaign, each.of(contestant)), devices)
            <= layers
        ),
    ]


def tried_micro_batches(campaign: Campaign, contestant: Contestant) -> list[int]:
    """Return the samples of a micro-batch that a contestant may train with, the usual one first."""
    usual = contestant_settings(campaign, contestant)
    replicas = contestant_replicas(campaign, contestant)
    sizes = [usual.micro_batch_size // replicas]
    if contestant_tuning(campaign, contestant) is not None:
        for candidate in candidates_of(campaign, contestant):
            count = candidate.options.get("micro_batches", usual.micro_batches)
            sizes.append(usual.batch_size // count // replicas)
    return list(dict.fromkeys(max(1, size) for size in sizes))


def _by_promise(lengths: list[int]) -> list[tuple[int, ...]]:
    """Return the places on all axes, those first that are nearest to the first values."""
    return sorted(product(*map(range, lengths)), key=lambda places: (sum(places), places[::-1]))


def _value(contestant: Contestant, settings: TrainSettings, name: str) -> Any:
    """Return the value of a setting, the strategy's own ones included.

    Raises:
        InputError: if there is none of that name, which only a strategy of the user's own offers.
    """
    for each in (settings.own, settings):
        if name in type(each).model_fields:
            return getattr(each, name)
    accepted = [*RunOptions.model_fields, *type(settings.own).model_fields]
    raise InputError(
        f"tunable of strategy {contestant.strategy} offers {name!r}, which is none of its settings"
        f"{closest(name, accepted)}: accepted are {', '.join(accepted)}; correct the strategy."
    )


def _accepted(campaign: Campaign, contestant: Contestant, devices: int) -> bool:
    """Tell if a strategy trains at these settings, as far as that takes neither files nor data.

    They must not give the contestant other devices than it has, as more stages on each would where
    its cuts are set.
    """
    entry = contestant.entry
    try:
        settings = contestant_settings(campaign, contestant)
        if contestant_stages(campaign, contestant) != devices:
            return False
        entry.check(
            PlannedRun(
                settings,
                model=None,
                ranks=entry.ranks(devices),
                stages=contestant_cut_into(campaign, contestant),
                steps=settings.steps,
                epochs=settings.epochs,
            )
        )
    except InputError:
        return False
    return True
