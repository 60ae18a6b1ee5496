"""Who runs in a race, which part each entrant plays in tables and figures, and its colour there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from hpc_lpm.campaign.trials import Trial
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.planning.own_split import OWN

_PALETTE = ("#a4478f", "#7a5c1e", "#4f57c4", "#b0413e", "#3d8fb8", "#6d8a1f")
"""Colours of contestants whose strategy has none of its own, or has given it to another."""


@dataclass(frozen=True)
class Entrant:
    """A contestant of a campaign in one race, under one planner if it needs any.

    The runs of an entrant differ in seed and repeat alone. `label` is unique within a race: the
    label of the contestant, and the planner where the campaign races several.
    """

    model: str
    dataset: str
    strategy: str
    label: str
    planner: str | None

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """Return the entrant that a trial is one run of."""
        return cls(trial.model, trial.dataset, trial.strategy, trial.label, trial.planner)

    @property
    def race(self) -> tuple[str, str]:
        """Model and data set: entrants of the same race are compared with each other."""
        return (self.model, self.dataset)

    @property
    def name(self) -> str:
        """Label of the contestant, by which expectations call it, whatever the planner."""
        return self.label.removesuffix(f" ({self.planner})")

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What stays the same from one campaign to another, however many planners each races."""
        return (self.model, self.dataset, self.name, self.planner or "")

    def meets(self, other: "Entrant") -> bool:
        """Tell if the two are compared: same race, another name, and the same planner if any.

        Cuts of the user's own are compared with those of every planner.
        """
        free = {None, "", OWN}
        return (
            self.race == other.race
            and self.name != other.name
            and (self.planner in free or other.planner in free or self.planner == other.planner)
        )


def baseline_of(entrants: Sequence[Entrant], who: Entrant) -> Entrant | None:
    """Return the contestant that speedups of `who` are taken over, None if none was run."""
    same = [c for c in entrants if c.race == who.race and strategy_named(c.strategy).baseline]
    return same[0] if same else None


def rival_of(entrants: Sequence[Entrant], who: Entrant) -> Entrant | None:
    """Return the established method that `who` is held against, None if none was run.

    It is the one with the same planner if there is one.
    """
    same = [c for c in entrants if c.race == who.race and strategy_named(c.strategy).rival]
    matching = [c for c in same if c.planner == who.planner] or same
    return matching[0] if matching else None


def is_proposed(who: Entrant) -> bool:
    """Tell if the strategy of `who` is the method that this project proposes."""
    return strategy_named(who.strategy).proposed


def entrant_colours(entrants: Iterable[Entrant]) -> dict[str, str]:
    """Return the colour of each label, the same in all figures of a campaign.

    The first contestant of a strategy that has a colour of its own gets it. The others get colours
    that depend on their labels, so that a contestant tends to keep its colour from campaign to
    campaign, and that differ as long as there are enough of them.
    """
    strategies = {who.label: who.strategy for who in entrants}
    colours: dict[str, str] = {}
    for label, strategy in strategies.items():
        own = strategy_named(strategy).colour
        if own is not None and own not in colours.values():
            colours[label] = own
    for label in strategies:
        if label not in colours:
            first = sum(label.encode()) % len(_PALETTE)
            ordered = [*_PALETTE[first:], *_PALETTE[:first]]
            free = [colour for colour in ordered if colour not in colours.values()]
            colours[label] = (free or ordered)[0]
    return colours
