"""Medians with 95 % confidence intervals, and paired comparisons between entrants of a race."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.metrics import Metric

CONFIDENCE = 0.95
MINIMUM_RUNS = 6
"""The fewest values for which a 95 % interval of the median is given.

The range of n values misses the median with probability 2 / 2^n, which is below 5 % from 6 values
on. With fewer, no interval between observed values can hold what it promises.
"""
RESAMPLES = 9999

NEVER = "\N{INFINITY}"
"""How an infinite number is written, such as the steps to a target that was not reached."""

_FAR = 1e100
"""Stands for infinity in arithmetic on percentiles, whose result is far then, and not undefined."""
_FAR_AWAY = 1e50


@dataclass(frozen=True)
class Estimate:
    """The median of `n` values, its 95 % interval if there are enough of them, and their range.

    A number is infinite where too many of the values are: those of runs that never got there.
    """

    n: int
    median: float
    minimum: float
    maximum: float
    low: float | None
    high: float | None

    def bounds(self) -> tuple[float, float]:
        """Return the 95 % interval, or the range where there are too few values for one."""
        if self.low is None or self.high is None:
            return (self.minimum, self.maximum)
        return (self.low, self.high)

    def text(self, digits: int = 2, factor: float = 1.0, unit: str = "") -> str:
        """Return e.g. `1.62 (95 % interval 1.58 to 1.66, n = 8)`, or the range where n is small."""
        middle = f"{number(factor * self.median, digits)}{unit}"
        if self.n == 1:
            return f"{middle} (one run)"
        what = "range" if self.low is None else "95 % interval"
        low, high = (number(factor * bound, digits) for bound in self.bounds())
        return f"{middle} ({what} {low} to {high}, n = {self.n})"


def number(value: float, digits: int) -> str:
    """Return a number with so many decimals."""
    return NEVER if math.isinf(value) else f"{value:.{digits}f}"


def far(values: Sequence[float]) -> list[float]:
    """Return the values with a number beyond all others in the place of infinity."""
    return [_FAR if math.isinf(value) else value for value in values]


def near(value: float) -> float:
    """Return a statistic of `far` values, infinite where these determine it."""
    return math.inf if value > _FAR_AWAY else value


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate the median with its percentile bootstrap interval, reproducibly.

    Infinite values count as larger than all others.

    Raises:
        ValueError: if there are no values.
    """
    array = np.asarray(far(values), dtype=float)
    if array.size == 0:
        raise ValueError("an estimate needs at least one value")
    low: float | None = None
    high: float | None = None
    if array.size >= MINIMUM_RUNS:
        interval = bootstrap(
            (array,),
            np.median,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = near(float(interval.low)), near(float(interval.high))
    return Estimate(
        n=int(array.size),
        median=near(float(np.median(array))),
        minimum=near(float(array.min())),
        maximum=near(float(array.max())),
        low=low,
        high=high,
    )


def paired(
    summary: pd.DataFrame, first: Entrant, second: Entrant, metric: str, *, any_call: bool = False
) -> pd.DataFrame:
    """Return the values of a metric of two entrants, joined on (seed, repeat).

    The columns are `seed`, `repeat`, `first` and `second`; a run without a partner is left out. A
    partner was trained in the same calls of Snakemake, since a machine's speed drifts, unless
    `any_call` is true. Of an entrant that was run again in the same call, the first run counts.
    """
    keys = ["seed", "repeat"]
    keys += ["calls"] if "calls" in summary and not any_call else []
    sides = [
        runs_of(summary, who)[[*keys, metric]]
        .rename(columns={metric: name})
        .drop_duplicates(subset=keys)
        for name, who in (("first", first), ("second", second))
    ]
    joined = sides[0].merge(sides[1], on=keys).dropna(subset=["first", "second"])
    return joined.sort_values(keys, ignore_index=True)


def unpaired(summary: pd.DataFrame, first: Entrant, second: Entrant, metric: str) -> int:
    """Count the seeds and repeats that both entrants have, but in different calls of Snakemake."""
    meetings = [
        paired(summary, first, second, metric, any_call=any_call)[["seed", "repeat"]]
        for any_call in (True, False)
    ]
    return len(meetings[0]) - len(meetings[1].drop_duplicates())


def paired_ratio(
    summary: pd.DataFrame, first: Entrant, second: Entrant, metric: str, *, any_call: bool = False
) -> Estimate | None:
    """Estimate first / second over pairs of runs; None if there is no pair.

    Runs of any call are paired where the seed determines the metric. A pair of which neither has
    reached its target has no ratio and is left out.
    """
    pairs = paired(summary, first, second, metric, any_call=any_call)
    ratios = (pairs["first"] / pairs["second"])[pairs["second"] != 0].dropna()
    return estimate(_values(ratios)) if len(ratios) else None


def paired_difference(
    summary: pd.DataFrame, first: Entrant, second: Entrant, metric: str
) -> Estimate | None:
    """Estimate first - second over pairs of runs of any call; None if there is no pair.

    It serves for shares that the seed determines, whenever a run was trained.
    """
    pairs = paired(summary, first, second, metric, any_call=True)
    return estimate(_values(pairs["first"] - pairs["second"])) if len(pairs) else None


def runs_of(summary: pd.DataFrame, who: Entrant) -> pd.DataFrame:
    """Return the rows of one entrant, of runs of its usual length."""
    chosen = (summary["model"] == who.model) & (summary["dataset"] == who.dataset)
    chosen &= summary["contestant"] == who.label
    if "length" in summary:
        chosen &= summary["length"] == 0
    return summary[chosen]


def entrants_in(summary: pd.DataFrame) -> list[Entrant]:
    """Return every entrant that has a run, in the order of the table."""
    columns = ["model", "dataset", "strategy", "contestant", "planner"]
    unique = summary[columns].drop_duplicates()
    return [
        Entrant(
            model=str(row["model"]),
            dataset=str(row["dataset"]),
            strategy=str(row["strategy"]),
            label=str(row["contestant"]),
            planner=str(row["planner"]) or None,
        )
        for _, row in unique.iterrows()
    ]


def statistics_table(summary: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Return `statistics.csv`: every metric of every entrant, alone and against each rival.

    `comparison` is empty in the rows of a metric alone. In those against the rival `relative_to`,
    it is `ratio` for value / rival's value, or `difference` for a share, or another quality of the
    model, minus that of the rival.
    """
    rows: list[dict[str, object]] = []
    entrants = entrants_in(summary)
    for who in entrants:
        for metric in metrics:
            values = _values(runs_of(summary, who)[metric.name].dropna())
            if values:
                rows.append(_row(who, metric.name, "", "", estimate(values)))
        for rival in filter(who.meets, entrants):
            name = f"{rival.name} {rival.planner or ''}".strip()
            for metric in metrics:
                if not metric.paired:
                    continue
                if metric.subtracted:
                    found = paired_difference(summary, who, rival, metric.name)
                else:
                    found = paired_ratio(summary, who, rival, metric.name, any_call=metric.of_seed)
                if found:
                    comparison = "difference" if metric.subtracted else "ratio"
                    rows.append(_row(who, metric.name, comparison, name, found))
    return pd.DataFrame(rows, columns=_STATISTICS)


_STATISTICS = [
    "model",
    "dataset",
    "strategy",
    "contestant",
    "planner",
    "metric",
    "comparison",
    "relative_to",
    "n",
    "median",
    "interval_low",
    "interval_high",
    "minimum",
    "maximum",
    "note",
]


def _row(
    who: Entrant, metric: str, comparison: str, relative_to: str, value: Estimate
) -> dict[str, object]:
    notes = []
    if value.low is None:
        notes.append(f"n = {value.n} is too few for a 95 % interval ({MINIMUM_RUNS} needed)")
    if math.isinf(value.maximum):
        notes.append("empty where it is infinite, since a run did not reach the target")
    return {
        "model": who.model,
        "dataset": who.dataset,
        "strategy": who.strategy,
        "contestant": who.label,
        "planner": who.planner or "",
        "metric": metric,
        "comparison": comparison,
        "relative_to": relative_to,
        "n": value.n,
        "median": _finite(value.median),
        "interval_low": _finite(value.low),
        "interval_high": _finite(value.high),
        "minimum": _finite(value.minimum),
        "maximum": _finite(value.maximum),
        "note": "; ".join(notes),
    }


def _finite(value: float | None) -> float | None:
    """Return what files have, which know no infinity."""
    return None if value is None or math.isinf(value) else value


def _values(column: "pd.Series[float]") -> list[float]:
    return [float(value) for value in column]
