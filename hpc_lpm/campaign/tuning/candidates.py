"""What may be tried of a contestant: values of its own options, and ways to start its ranks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import (
    Contestant,
    contestant_replicas,
    contestant_settings,
    contestant_stages,
    contestant_tuning,
)
from hpc_lpm.cluster.launchers import LAUNCHERS
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.errors import InputError

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
    """
    usual = contestant_settings(campaign, contestant)
    set_already = {*contestant.overrides, *campaign.own, *campaign.set_shared}
    axes: dict[str, list[Any]] = {}
    for name, values in contestant.entry.tunable(usual).items():
        if name not in set_already:
            first = _value(usual, name)
            axes[name] = [first, *(value for value in values if value != first)]
    launcher = campaign.launcher
    together = contestant.entry.processes(usual, contestant_stages(campaign, contestant)) > 1
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
        if not places or not any(places) or _accepted(campaign, candidate.of(contestant)):
            found.append(candidate)
    return found[:MOST_CANDIDATES]


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


def _value(settings: TrainSettings, name: str) -> Any:
    return getattr(settings.own if name in type(settings.own).model_fields else settings, name)


def _accepted(campaign: Campaign, contestant: Contestant) -> bool:
    """Tell if a strategy trains at these settings, as far as that takes neither files nor data."""
    entry = contestant.entry
    try:
        ranks = entry.ranks(contestant_stages(campaign, contestant))
        settings = contestant_settings(campaign, contestant)
        entry.check(
            PlannedRun(
                settings,
                model=None,
                ranks=ranks,
                stages=ranks if entry.needs_plan else 1,
                steps=settings.steps,
                epochs=settings.epochs,
            )
        )
    except InputError:
        return False
    return True
