"""The contestants of a campaign: strategies at certain settings, each under a label of its own."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hpc_lpm.campaign.sections import Tuning
from hpc_lpm.engine.settings import TrainSettings, checked_settings, settings_fields
from hpc_lpm.engine.strategies.base import Strategy
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError, closest
from hpc_lpm.options import RunOptions, merged_documents
from hpc_lpm.planning.own_split import OWN
from hpc_lpm.typed_values import refusal

if TYPE_CHECKING:
    from hpc_lpm.campaign.config import Campaign

OF_THE_CAMPAIGN = ("model", "dataset", "strategy", "plan", "seed", "batch_size")
"""The settings that all contestants share, or that vary by the campaign's own lists."""


REPLICAS = "replicas"
"""How many copies of every stage a contestant trains, its devices being shared among them."""

OF_ITS_PLAN = ("stages", REPLICAS, "cuts", "cut_only_at")
"""What a contestant may set besides its settings: how the model is cut for it."""

AGAIN = "again"
"""How often a contestant runs once more, beside those that came later."""

MOST_AGAIN = 1000

LENGTHS = "lengths"
"""The further lengths at which a contestant runs, for a target under a decaying rate."""

TUNE = "tune"
"""Whether the best settings of a contestant are searched for before it is raced, and how long."""

OF_ITS_RUNS = (AGAIN, LENGTHS, TUNE)
"""What a contestant may set besides settings and plan: which runs it has, and what comes first."""


@dataclass(frozen=True)
class Contestant:
    """One strategy at the settings that the campaign gives it.

    `label` names it in tables, figures and expectations; `overrides` are the settings in which it
    differs from the campaign's own, `stages` included.
    """

    strategy: str
    label: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entry(self) -> Strategy:
        """The registered strategy of that name."""
        return strategy_named(self.strategy)


def contestant_of(entry: object) -> Contestant:
    """Return the contestant of an entry of `strategies`: a name, or `{name: {setting: value}}`.

    Raises:
        ValueError: if the entry is neither.
    """
    if isinstance(entry, str):
        return Contestant(entry, entry)
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((strategy, overrides),) = entry.items()
        if isinstance(strategy, str) and isinstance(overrides, Mapping | None):
            settings = dict(overrides or {})
            label = settings.pop("name", strategy)
            if not isinstance(label, str) or not label.strip() or not label.isprintable():
                raise ValueError(
                    f"the contestant of {strategy} has the name {label!r}, accepted is a text "
                    "of one line that is not empty, in quotes if it looks like a number"
                )
            return Contestant(strategy, label, settings)
    raise ValueError(
        f"strategies has the entry {entry!r}, accepted are a name, or one name with settings such "
        "as {fbp: {lead: 2}}"
    )


def contestants_of(entries: list[Any]) -> list[Contestant]:
    """Return the contestants of a campaign's `strategies`, in order.

    Raises:
        ValueError: if an entry is not accepted, or two contestants have one label.
    """
    contestants = [contestant_of(entry) for entry in entries]
    labels = [contestant.label for contestant in contestants]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"strategies has two contestants called {label!r}, each label is accepted once: "
                f"give one another name, such as {{{label}: {{name: {label}-2}}}}"
            )
    return contestants


def contestant_stages(campaign: "Campaign", contestant: Contestant) -> int:
    """Return the number of devices that a contestant is given.

    Raises:
        InputError: if its `stages` is not a whole number of at least 2, or not that of its cuts,
            or its cuts do not give each device as many stages as its schedule puts there.
    """
    cuts = contestant_cuts(campaign, contestant)
    usual = _devices_of_cuts(campaign, contestant, len(cuts)) if cuts else campaign.stages
    stages = contestant.overrides.get("stages", usual)
    if not isinstance(stages, int) or isinstance(stages, bool) or stages < 2:
        raise InputError(
            f"stages of {contestant.label} is {stages!r}, accepted are whole numbers from 2."
        )
    if cuts and stages != usual:
        raise InputError(
            f"stages of {contestant.label} is {stages}, but its cuts "
            f"{', '.join(map(str, cuts))} make {usual} stages: leave one of the two out."
        )
    return stages


def _devices_of_cuts(campaign: "Campaign", contestant: Contestant, cuts: int) -> int:
    """Return the number of devices that hold the stages which so many cuts make."""
    pieces = cuts + 1
    settings = _settings_asked_for(campaign, contestant)
    chunks = contestant.entry.stages_on(settings, 1)
    if chunks > 1 and "cuts" not in contestant.overrides:
        raise InputError(
            f"cuts of the campaign make {pieces} stages, one on each device, but {contestant.label}"
            f" holds {chunks} on each: give it cuts of its own, or `cuts: []`, so that they are "
            "searched."
        )
    if pieces % chunks:
        raise InputError(
            f"cuts of {contestant.label} make {pieces} stages, but it holds {chunks} on each "
            f"device: give cuts that make a multiple of {chunks}."
        )
    return pieces // chunks * _replicas(contestant)


def contestant_replicas(campaign: "Campaign", contestant: Contestant) -> int:
    """Return the number of copies of every stage, 1 where a contestant does not say.

    Raises:
        InputError: if it takes no plan, or its devices cannot be shared among so many copies of at
            least two stages.
    """
    if not contestant.entry.needs_plan:
        _refuse_plan_keys(contestant)
        return 1
    replicas, devices = _replicas(contestant), contestant_stages(campaign, contestant)
    if replicas > 1 and (devices % replicas or devices == replicas):
        accepted = [str(each) for each in range(1, devices) if devices % each == 0]
        raise InputError(
            f"{REPLICAS} of {contestant.label} is {replicas}, but its {devices} devices can be "
            f"shared among {' or '.join(accepted)}: use one of these, or other stages."
        )
    return replicas


def contestant_cut_into(campaign: "Campaign", contestant: Contestant) -> int:
    """Return the number of stages that the model is cut into for a contestant, 1 without a plan.

    Raises:
        InputError: as `contestant_stages` and `contestant_replicas`.
    """
    if not contestant.entry.needs_plan:
        return 1
    ranks = contestant.entry.ranks(contestant_stages(campaign, contestant))
    return ranks // contestant_replicas(campaign, contestant)


def contestant_processes(campaign: "Campaign", contestant: Contestant) -> int:
    """Return the number of processes that a run of a contestant starts.

    Raises:
        InputError: if a setting or `stages` is not accepted.
    """
    settings = contestant_settings(campaign, contestant)
    return contestant.entry.processes(settings, contestant_stages(campaign, contestant))


def contestant_cuts(campaign: "Campaign", contestant: Contestant) -> tuple[int | str, ...]:
    """Return the cuts that a contestant's plan is to have, none where they are searched.

    Raises:
        InputError: if its `cuts` is not a list of positions and names, or it takes no plan.
    """
    if not contestant.entry.needs_plan:
        _refuse_plan_keys(contestant)
        return ()
    cuts = contestant.overrides.get("cuts", campaign.cuts) or []
    fine = isinstance(cuts, list) and all(
        _is_name(cut) or (isinstance(cut, int) and not isinstance(cut, bool)) for cut in cuts
    )
    if not fine:
        raise InputError(
            f"cuts of {contestant.label} is {cuts!r}, accepted is a list of positions and names "
            "such as [4, encoder.block3]."
        )
    return tuple(cuts)


def contestant_cut_only_at(campaign: "Campaign", contestant: Contestant) -> tuple[str, ...]:
    """Return the patterns that restrict a contestant's cuts, none where all are allowed.

    Raises:
        InputError: if its `cut_only_at` is not a list of names, or it takes no plan.
    """
    if not contestant.entry.needs_plan:
        _refuse_plan_keys(contestant)
        return ()
    patterns = contestant.overrides.get("cut_only_at", campaign.cut_only_at) or []
    if not isinstance(patterns, list) or not all(_is_name(pattern) for pattern in patterns):
        raise InputError(
            f"cut_only_at of {contestant.label} is {patterns!r}, accepted is a list of names and "
            "patterns such as [encoder.*, 'type:Block']."
        )
    return tuple(patterns)


def contestant_planners(campaign: "Campaign", contestant: Contestant) -> Sequence[str | None]:
    """Return the planners under which a contestant takes part, None for one without a plan."""
    if not contestant.entry.needs_plan:
        return [None]
    return [OWN] if contestant_cuts(campaign, contestant) else campaign.planners


def contestant_runs(contestant: Contestant) -> range:
    """Return the numbers of the runs of a contestant for each seed and repeat, from 0.

    Raises:
        InputError: if its `again` is not a whole number from 0.
    """
    again = contestant.overrides.get(AGAIN, 0)
    if not isinstance(again, int) or isinstance(again, bool) or not 0 <= again <= MOST_AGAIN:
        raise InputError(
            f"{AGAIN} of {contestant.label} is {again!r}, accepted are whole numbers from 0 to "
            f"{MOST_AGAIN}."
        )
    return range(again + 1)


def contestant_lengths(campaign: "Campaign", contestant: Contestant) -> Sequence[int | None]:
    """Return the lengths of the runs of a contestant, None for that of its settings, which is last.

    They count what its settings count, epochs or steps.

    Raises:
        InputError: if its `lengths` is not a list of whole numbers from 1.
    """
    lengths = contestant.overrides.get(LENGTHS, campaign.lengths)
    whole = isinstance(lengths, list) and all(
        isinstance(length, int) and not isinstance(length, bool) and length > 0
        for length in lengths
    )
    if not whole or len(set(lengths)) < len(lengths):
        raise InputError(
            f"{LENGTHS} of {contestant.label} is {lengths!r}, accepted is a list of different "
            "whole numbers from 1, such as [400, 500]."
        )
    return [*lengths, None]


def contestant_tuning(campaign: "Campaign", contestant: Contestant) -> Tuning | None:
    """Return how the settings of a contestant are searched for, None if they are as they are set.

    Raises:
        InputError: if its `tune` is neither true nor false, nor a mapping of what a tuning takes.
    """
    asked = contestant.overrides.get(TUNE, campaign.tune)
    if isinstance(asked, Tuning):
        return asked
    if isinstance(asked, bool):
        return Tuning() if asked else None
    try:
        return Tuning.model_validate(asked)
    except ValidationError as error:
        raise InputError(
            f"{TUNE} of {contestant.label} is {asked!r}, accepted are true, false and what a "
            f"tuning takes, such as {{budget_seconds: 60}}: {refusal(error, 'correct it')}."
        ) from None


def _replicas(contestant: Contestant) -> int:
    replicas = contestant.overrides.get(REPLICAS, 1)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 1:
        raise InputError(
            f"{REPLICAS} of {contestant.label} is {replicas!r}, accepted are whole numbers from 1."
        )
    return replicas


def _is_name(value: object) -> bool:
    # Names are handed on in one option, separated by commas.
    return isinstance(value, str) and bool(value.strip()) and "," not in value


def _refuse_plan_keys(contestant: Contestant) -> None:
    for key in (REPLICAS, "cuts", "cut_only_at"):
        if key in contestant.overrides:
            raise InputError(
                f"{key} is set for {contestant.label}, but {contestant.strategy} does not cut the "
                "model into stages: leave it out."
            )


def contestant_settings(
    campaign: "Campaign",
    contestant: Contestant,
    *,
    model: str | None = None,
    dataset: str | None = None,
    seed: int | None = None,
    plan: str | None = None,
    length: int | None = None,
) -> TrainSettings:
    """Return the settings of a contestant's run: the campaign's, overridden by its own.

    An option that the strategy does not take is left out where the campaign sets it for all.
    Model, data set and seed are the first of the campaign's unless they are given; `length`
    replaces the epochs or steps of a run.

    Raises:
        InputError: if a setting is unknown to the strategy or its value is not accepted.
    """
    settings = _settings_asked_for(
        campaign, contestant, model=model, dataset=dataset, seed=seed, plan=plan, length=length
    )
    if "threads" in contestant.overrides:
        return settings
    return contestant.entry.on_devices(settings, contestant_stages(campaign, contestant))


def _settings_asked_for(
    campaign: "Campaign",
    contestant: Contestant,
    *,
    model: str | None = None,
    dataset: str | None = None,
    seed: int | None = None,
    plan: str | None = None,
    length: int | None = None,
) -> TrainSettings:
    """Return the settings before the strategy has fitted them to its devices."""
    entry = contestant.entry
    own = {name: value for name, value in campaign.own.items() if entry.takes(name)}
    shared = {name: getattr(campaign, name) for name in RunOptions.model_fields}
    document: dict[str, Any] = {
        **{name: _plain(value) for name, value in shared.items()},
        **own,
        "model": campaign.models[0] if model is None else model,
        "dataset": campaign.datasets[0] if dataset is None else dataset,
        "strategy": contestant.strategy,
        "seed": campaign.seeds[0] if seed is None else seed,
        "plan": plan,
    }
    if campaign.clip_scope == "stage" and "stage" not in entry.clip_scopes:
        document["clip_scope"] = None
    _override(document, contestant)
    if length is not None:
        document["epochs" if document["epochs"] is not None else "steps"] = length
    return entry.with_clip_scope(checked_settings(**document))


def in_file_words(sentence: str, strategy: str) -> str:
    """Return the sentence with its command-line options replaced by keys of a campaign file."""
    keys = {item.option_name: ".".join(item.path) for item in settings_fields(strategy)}
    known = {option: key for option, key in keys.items() if key not in OF_THE_CAMPAIGN[:4]}
    known |= {f"--{key.replace('_', '-')}": key for key in OF_ITS_PLAN}
    return re.sub(r"--[a-z][a-z-]*", lambda found: known.get(found[0], found[0]), sentence)


def _override(document: dict[str, Any], contestant: Contestant) -> None:
    fields = settings_fields(contestant.strategy)
    accepted = {item.path[0] for item in fields} - set(OF_THE_CAMPAIGN)
    for name, value in contestant.overrides.items():
        if name in OF_ITS_PLAN or name in OF_ITS_RUNS:
            continue
        if name in OF_THE_CAMPAIGN:
            raise InputError(
                f"{name} is set for {contestant.label} alone, but all contestants share it: set it "
                "for the whole campaign."
            )
        if name not in accepted:
            offered = sorted(accepted | {"name", *OF_ITS_RUNS, *OF_ITS_PLAN})
            raise InputError(
                f"{contestant.label} has the unknown setting {name!r}{closest(name, offered)}: "
                f"accepted are {', '.join(offered)}."
            )
        if name in {"epochs", "steps"}:
            document.update(epochs=None, steps=None)
        document.update(merged_documents(document, {name: value}))


def _plain(value: object) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
