"""What changed for each contestant: the runs of campaign B against those of A.

Campaigns run at different times, so that throughput and memory of a run of A share no disturbance
with those of any run of B: two independent samples, compared by their medians. What the seed
determines, such as accuracy, is paired instead: in A and in B, training starts from the same
weights and sees the data in the same order. Repeats of a seed are the same computation once more
and count as one.

No interval covers how the machine drifts from A to B, which throughput follows. The speedup over
the baseline does not: it is taken within each campaign between runs next to each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf

import numpy as np
import pandas as pd

from hpc_lpm.campaign.comparison.change import Change, change_of
from hpc_lpm.campaign.comparison.intervals import (
    ConfidenceInterval,
    median_of_population,
    ratio_of_medians,
)
from hpc_lpm.campaign.entrants import Entrant, baseline_of
from hpc_lpm.campaign.metrics import THROUGHPUT, Metric, Quantity
from hpc_lpm.campaign.statistics import (
    MINIMUM_RUNS,
    entrants_in,
    far,
    near,
    paired,
    runs_of,
)

SPEEDUP = Quantity("speedup_over_sequential", "speedup")
"""Throughput over that of the baseline, which is sequential training, in the same campaign."""


@dataclass(frozen=True)
class ContestantChange:
    """How one quantity of one contestant, as it is called in B, changed.

    `runs_a` and `runs_b` count the values of each side; `common_seeds` is the number of pairs, None
    where nothing is paired.
    """

    who: Entrant
    runs_a: int
    runs_b: int
    common_seeds: int | None
    change: Change

    @property
    def count_text(self) -> str:
        """What the change rests on: the runs of A and of B, or the seeds that both have."""
        if self.common_seeds is not None:
            return str(self.common_seeds)
        return f"{self.runs_a}, {self.runs_b}"

    def document(self) -> dict[str, object]:
        """Return the change as JSON; docs/reference/files.md describes the keys."""
        return {
            "contestant": " ".join(filter(None, self.who.identity)),
            "model": self.who.model,
            "dataset": self.who.dataset,
            "strategy": self.who.strategy,
            "label": self.who.label,
            "planner": self.who.planner or "",
            "runs_a": self.runs_a,
            "runs_b": self.runs_b,
            "common_seeds": self.common_seeds,
            **self.change.document(),
        }


@dataclass(frozen=True)
class _Side:
    """One campaign's summary, and the contestant in question as that campaign knows it."""

    summary: pd.DataFrame
    who: Entrant

    def runs(self, quantity: Quantity) -> pd.DataFrame:
        """Return seed and value of every run that has one, which no run of a campaign may have."""
        if quantity.name not in self.summary:
            return pd.DataFrame(columns=["seed", quantity.name])
        return runs_of(self.summary, self.who)[["seed", quantity.name]].dropna()

    def values(self, quantity: Quantity) -> list[float]:
        """Return the value of every run that has one."""
        if quantity != SPEEDUP:
            return [float(value) for value in self.runs(quantity)[quantity.name]]
        baseline = baseline_of(entrants_in(self.summary), self.who)
        if baseline is None or baseline == self.who:
            return []
        pairs = paired(self.summary, self.who, baseline, THROUGHPUT.name)
        return [float(value) for value in pairs["first"] / pairs["second"]]


def contestant_changes(
    first: pd.DataFrame, second: pd.DataFrame, metrics: Sequence[Metric]
) -> list[ContestantChange]:
    """Compare two summaries, A and B, contestant by contestant, in the order of B.

    A metric that one side does not have, or that is 0 in all runs of both, is left out.
    """
    changes: list[ContestantChange] = []
    theirs, ours = entrants_in(first), entrants_in(second)
    for who in ours:
        counterpart = _counterpart(who, ours, theirs)
        if counterpart is None:
            continue
        a, b = _Side(first, counterpart), _Side(second, who)
        for quantity in compared_quantities(metrics):
            compare = _difference if quantity.subtracted else _ratio
            changes += compare(a, b, quantity)
    return changes


def compared_quantities(metrics: Sequence[Metric]) -> list[Quantity]:
    """Return the metrics by which campaigns are compared, with the speedup after throughput."""
    compared: list[Quantity] = [metric for metric in metrics if metric.compared_as is not None]
    compared.insert(compared.index(THROUGHPUT) + 1, SPEEDUP)
    return compared


def _counterpart(
    who: Entrant, ours: Sequence[Entrant], theirs: Sequence[Entrant]
) -> Entrant | None:
    """Return the contestant of A that `who` of B is compared with, None if there is none.

    It has the same name, or else, as it may have been renamed, it is the only one of the same
    strategy and planner in A, as `who` is in B.
    """
    for other in theirs:
        if other.identity == who.identity:
            return other
    same_in_b, same_in_a = (
        [
            other
            for other in contestants
            if (other.race, other.strategy, other.planner) == (who.race, who.strategy, who.planner)
        ]
        for contestants in (ours, theirs)
    )
    return same_in_a[0] if len(same_in_a) == len(same_in_b) == 1 else None


def _ratio(a: _Side, b: _Side, quantity: Quantity) -> list[ContestantChange]:
    first, second = a.values(quantity), b.values(quantity)
    if not first or not second or not any(first + second):
        return []
    medians = [float(np.median(far(values))) for values in (first, second)]
    beyond = [side for side, median in zip("AB", map(near, medians), strict=True) if isinf(median)]
    if beyond:
        change = change_of(quantity, None, None, f"not reached in {' and '.join(beyond)}")
    elif not all(first):
        change = change_of(quantity, None, None, "0 in A")
    else:
        value = medians[1] / medians[0]
        change = change_of(quantity, value, *_interval(first, second))
    return [ContestantChange(b.who, len(first), len(second), None, change)]


def _interval(first: list[float], second: list[float]) -> tuple[ConfidenceInterval | None, str]:
    """Return the interval of a ratio of medians, and why there is none if there is none."""
    if min(len(first), len(second)) < MINIMUM_RUNS:
        return None, f"fewer than {MINIMUM_RUNS} runs"
    low, high = ratio_of_medians(far(first), far(second))
    if isinf(near(high)) or (low > 0 and isinf(near(1 / low))):
        return None, "too many runs did not reach the target"
    return (low, high), ""


def _difference(a: _Side, b: _Side, quantity: Quantity) -> list[ContestantChange]:
    sides = [side.runs(quantity) for side in (a, b)]
    if any(side.empty for side in sides):
        return []
    # Medians, so that equal repeats give the very same number however many there are.
    first, second = (side.groupby("seed")[quantity.name].median() for side in sides)
    differences = [float(value) for value in (second - first).dropna()]
    enough = len(differences) >= MINIMUM_RUNS
    change = change_of(
        quantity,
        float(pd.Series(differences).median()) if differences else None,
        median_of_population(differences) if enough else None,
        f"fewer than {MINIMUM_RUNS} common seeds" if differences else "no common seed",
    )
    runs_a, runs_b = (len(side) for side in sides)
    return [ContestantChange(b.who, runs_a, runs_b, len(differences), change)]
