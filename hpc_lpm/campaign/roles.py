"""The part that each contestant plays in tables and figures, and its colour there."""

from collections.abc import Iterable, Sequence

from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.engine.strategies.registry import strategy_named

_PALETTE = ("#a4478f", "#7a5c1e", "#4f57c4", "#b0413e", "#3d8fb8", "#6d8a1f")
"""Colours of contestants whose strategy has none of its own, or has given it to another."""


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
