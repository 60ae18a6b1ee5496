"""What changed for each contestant: the runs of campaign B against those of A.

What is unpaired and what is paired. Campaigns run at different times, so that throughput and memory
of a run of A share no disturbance with those of any run of B: two independent samples. The weights
that training starts from and the order of the data are those of the seed in A and in B, so that
accuracies are paired by seed; repeats of a seed are the same computation once more and count as
one. Throughput also has what no interval can know, drift of the machine from A to B: the speedup
over sequential training, taken within each campaign between runs next to each other, is free of it.
"""

from dataclasses import dataclass

import pandas as pd

from hpc_lpm.campaign.comparison.change import METRIC_TITLES, SPEEDUP, Change, change_of
from hpc_lpm.campaign.comparison.intervals import median_of_population, ratio_of_medians
from hpc_lpm.campaign.figures.throughput import BASELINE
from hpc_lpm.campaign.statistics import MINIMUM_RUNS, identities, paired, runs_of


@dataclass(frozen=True)
class ContestantChange:
    """A change of one metric of one contestant.

    `runs_a` and `runs_b` are the values that each side has; `common_seeds` is the number of pairs,
    None where nothing is paired.
    """

    model: str
    dataset: str
    strategy: str
    planner: str
    runs_a: int
    runs_b: int
    common_seeds: int | None
    change: Change

    @property
    def contestant(self) -> str:
        """All that identifies the contestant, in one line."""
        return " ".join(filter(None, (self.model, self.dataset, self.strategy, self.planner)))

    @property
    def count_text(self) -> str:
        """What the change rests on: the runs of A and of B, or the seeds that both have."""
        if self.common_seeds is not None:
            return str(self.common_seeds)
        return f"{self.runs_a}, {self.runs_b}"


def contestant_changes(first: pd.DataFrame, second: pd.DataFrame) -> list[ContestantChange]:
    """Compare two summaries, A and B, contestant by contestant, in the order of B.

    A metric that one side does not have, or that is 0 in all runs of both, is left out.
    """
    changes: list[ContestantChange] = []
    for who in identities(second):
        for metric in METRIC_TITLES:
            compare = _accuracy if metric == "test_accuracy" else _ratio
            changes += compare(first, second, who, metric)
    return changes


def _ratio(
    first: pd.DataFrame, second: pd.DataFrame, who: dict[str, str], metric: str
) -> list[ContestantChange]:
    a, b = (_values(table, who, metric) for table in (first, second))
    if not a or not b or not any(a + b):
        return []
    if not all(a):
        change = change_of(metric, None, None, "0 in A")
    else:
        value = float(pd.Series(b).median() / pd.Series(a).median())
        enough = min(len(a), len(b)) >= MINIMUM_RUNS
        interval = ratio_of_medians(a, b) if enough else None
        change = change_of(metric, value, interval, f"fewer than {MINIMUM_RUNS} runs")
    return [ContestantChange(**who, runs_a=len(a), runs_b=len(b), common_seeds=None, change=change)]


def _accuracy(
    first: pd.DataFrame, second: pd.DataFrame, who: dict[str, str], metric: str
) -> list[ContestantChange]:
    sides = [runs_of(table, who)[["seed", metric]].dropna() for table in (first, second)]
    if any(side.empty for side in sides):
        return []
    # Medians, so that equal repeats give the very same number however many there are.
    a, b = (side.groupby("seed")[metric].median() for side in sides)
    differences = [float(value) for value in (b - a).dropna()]
    enough = len(differences) >= MINIMUM_RUNS
    change = change_of(
        metric,
        float(pd.Series(differences).median()) if differences else None,
        median_of_population(differences) if enough else None,
        f"fewer than {MINIMUM_RUNS} common seeds" if differences else "no common seed",
    )
    runs_a, runs_b = (len(side) for side in sides)
    return [
        ContestantChange(
            **who, runs_a=runs_a, runs_b=runs_b, common_seeds=len(differences), change=change
        )
    ]


def _values(table: pd.DataFrame, who: dict[str, str], metric: str) -> list[float]:
    if metric != SPEEDUP:
        return [float(value) for value in runs_of(table, who)[metric].dropna()]
    if who["strategy"] == BASELINE:
        return []
    baseline = {**who, "strategy": BASELINE, "planner": ""}
    pairs = paired(table, who, baseline, "samples_per_second")
    return [float(value) for value in pairs["first"] / pairs["second"]]
