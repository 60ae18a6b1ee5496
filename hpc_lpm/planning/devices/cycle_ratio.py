"""The rate of a repeating system whose events wait for one another: its slowest cycle.

If event v of step s happens no earlier than `ticks` after event u of step s - `steps`, for all
constraints (u, v, ticks, steps), a steady state repeats every max over the cycles of ticks / steps
(Baccelli, Cohen, Olsder and Quadrat, Synchronization and Linearity, 1992).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Constraint:
    """Event `target` of a step is at least `ticks` after event `source` of `steps` steps before."""

    source: int
    target: int
    ticks: int
    steps: int


@dataclass(frozen=True)
class Cycle:
    """Constraints of which each begins where the one before ends, the first after the last."""

    constraints: tuple[Constraint, ...]

    @property
    def ratio(self) -> Fraction:
        """Ticks a step that the cycle takes."""
        ticks = sum(constraint.ticks for constraint in self.constraints)
        return Fraction(ticks, sum(constraint.steps for constraint in self.constraints))


def slowest_cycle(constraints: Sequence[Constraint], events: int, above: Fraction) -> Cycle | None:
    """Return a cycle of the largest ratio, or None if no cycle has a ratio larger than `above`.

    Every cycle has to have a constraint with `steps` above 0. Constraints within a step are best
    given in the order of time: each round then follows a whole step.

    Newton's iteration on the ratio: as long as the constraints, each shortened by `steps` times the
    ratio, have a cycle of positive length, go on with the ratio of that cycle. Exact.
    """
    slowest = None
    ratio = above
    while (cycle := _positive_cycle(constraints, events, ratio)) is not None:
        slowest, ratio = cycle, cycle.ratio
    return slowest


def _positive_cycle(
    constraints: Sequence[Constraint], events: int, ratio: Fraction
) -> Cycle | None:
    """Return a cycle with more than `ratio` ticks per step, by Bellman's and Ford's longest paths.

    Constraints that set an event last, seen as a graph, have a cycle only if it is positive.
    """
    shortened = [
        (item.source, item.target, item.ticks * ratio.denominator - item.steps * ratio.numerator)
        for item in constraints
    ]
    times = [0] * events
    setters: list[Constraint | None] = [None] * events
    while True:
        changed = False
        for constraint, (source, target, length) in zip(constraints, shortened, strict=True):
            time = times[source] + length
            if time > times[target]:
                times[target] = time
                setters[target] = constraint
                changed = True
        if not changed:
            return None
        if (cycle := _cycle_of(setters)) is not None:
            return cycle


def _cycle_of(setters: Sequence[Constraint | None]) -> Cycle | None:
    """Return the slowest cycle that follows from event to event against the constraints."""
    found: list[Cycle] = []
    visited_from = [-1] * len(setters)
    for first in range(len(setters)):
        event = first
        while visited_from[event] < 0 and (setter := setters[event]) is not None:
            visited_from[event] = first
            event = setter.source
        if visited_from[event] == first:
            found.append(_follow(setters, event))
    return max(found, key=lambda cycle: cycle.ratio, default=None)


def _follow(setters: Sequence[Constraint | None], event: int) -> Cycle:
    constraints: list[Constraint] = []
    at = event
    while not constraints or at != event:
        setter = setters[at]
        assert setter is not None
        constraints.append(setter)
        at = setter.source
    return Cycle(tuple(reversed(constraints)))
