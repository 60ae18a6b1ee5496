"""Successive halving: short trainings of all candidates, then longer ones of the better half.

The method is that of Jamieson and Talwalkar (Non-stochastic best arm identification and
hyperparameter optimization, 2016), with a budget of seconds instead of trainings.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

FIRST_SHARE = 0.5
"""The share of the budget in which every candidate is to be tried once."""

Measure = Callable[[Sequence[int], int, float], Mapping[int, Sequence[float] | str]]
"""Trains candidates `turns` times in turn and returns the seconds of their steps, or why not.

It gets the candidates' numbers, `turns`, and the seconds after which it begins no other training. A
candidate whose turn did not come is left out of what it returns.
"""


@dataclass
class Standing:
    """How a candidate stands.

    Attributes:
        rounds: how many rounds it has been tried in.
        step_seconds: the seconds of each of its measured steps.
        failure: why it cannot be trained, None if it can.
    """

    rounds: int = 0
    step_seconds: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def median_seconds(self) -> float:
        """The median of its steps, infinite without any."""
        if self.failure is not None or not self.step_seconds:
            return math.inf
        return median(self.step_seconds)


def halve(
    candidates: int,
    measure: Measure,
    score: Callable[[int, float], tuple[float, ...]],
    budget_seconds: float,
    clock: Callable[[], float],
) -> list[Standing]:
    """Try candidates within a budget and return how each of them stands.

    In the first round every candidate is trained once, the most promising first, until half of the
    budget is spent. Every further round trains the better half of those that were tried, twice as
    often, as long as the round is expected to end within the budget.

    Args:
        candidates: how many there are; the lower its number, the more promising a candidate.
        measure: trains candidates.
        score: what candidate number n is worth at a median of seconds a step; less is better.
        budget_seconds: the time that all of it may take.
        clock: tells the time in seconds.
    """
    began = clock()
    standings = [Standing() for _ in range(candidates)]
    racing, turns = list(range(candidates)), 1
    allowance = FIRST_SHARE * budget_seconds
    while racing:
        started = clock()
        for number, found in measure(racing, turns, allowance).items():
            standing = standings[number]
            if isinstance(found, str):
                standing.failure = found
            elif found:
                standing.rounds += 1
                standing.step_seconds += found
        tried = [number for number in racing if standings[number].median_seconds < math.inf]
        spent = clock() - started
        racing = ranking(standings, score)[: math.ceil(len(tried) / 2)]
        turns *= 2
        # Half of the candidates twice as often take as long as the round before.
        allowance = budget_seconds - (clock() - began)
        if len(racing) < 2 or allowance < spent:
            break
    return standings


def ranking(
    standings: Sequence[Standing], score: Callable[[int, float], tuple[float, ...]]
) -> list[int]:
    """Return the numbers of the candidates that could be trained, the best first.

    Who came further is better; among these the score decides.
    """
    trained = [
        number for number, standing in enumerate(standings) if standing.median_seconds < math.inf
    ]
    return sorted(
        trained,
        key=lambda number: (
            -standings[number].rounds,
            *score(number, standings[number].median_seconds),
            number,
        ),
    )
