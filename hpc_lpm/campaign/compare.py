"""Compares two campaigns: better, worse or inconclusive."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import bootstrap

from hpc_lpm.campaign.statistics import (
    CONFIDENCE,
    IDENTITY,
    MINIMUM_RUNS,
    RESAMPLES,
    identities,
)

HIGHER_IS_BETTER = {
    "samples_per_second": True,
    "test_accuracy": True,
    "peak_memory_bytes": False,
    "bytes_sent": False,
}
BETTER, WORSE, INCONCLUSIVE = "better", "worse", "inconclusive"


@dataclass(frozen=True)
class Change:
    """Median of B over median of A for one metric of one contestant, and what it means."""

    contestant: str
    metric: str
    runs_a: int
    runs_b: int
    ratio: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Changes from campaign A to B, and the trials that are in both.

    `same_weights` says for each common trial if it ended in the very same weights.
    """

    changes: list[Change]
    same_weights: dict[str, bool]
    only_in_a: list[str]
    only_in_b: list[str]


def compare_summaries(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """Compare two summaries, A and B; campaigns ran at different times, so runs are not paired."""
    changes: list[Change] = []
    for who in identities(second):
        for metric, higher_is_better in HIGHER_IS_BETTER.items():
            a, b = (_values(table, who, metric) for table in (first, second))
            if a.size and b.size and np.median(a) != 0:
                changes.append(_change(who, metric, a, b, higher_is_better))
    weights_a, weights_b = (
        dict(zip(table["trial"], table["weights_sha256"], strict=True)) for table in (first, second)
    )
    return Comparison(
        changes=changes,
        same_weights={
            name: weights_a[name] == weights_b[name] for name in weights_b if name in weights_a
        },
        only_in_a=[name for name in weights_a if name not in weights_b],
        only_in_b=[name for name in weights_b if name not in weights_a],
    )


def _change(
    who: dict[str, str],
    metric: str,
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    higher_is_better: bool,
) -> Change:
    low: float | None = None
    high: float | None = None
    if min(a.size, b.size) >= MINIMUM_RUNS:
        low, high = _interval(a, b)
    return Change(
        contestant=" ".join(filter(None, who.values())),
        metric=metric,
        runs_a=int(a.size),
        runs_b=int(b.size),
        ratio=float(np.median(b) / np.median(a)),
        low=low,
        high=high,
        verdict=_verdict(low, high, higher_is_better),
    )


def _verdict(low: float | None, high: float | None, higher_is_better: bool) -> str:
    if low is None or high is None or low <= 1.0 <= high:
        return INCONCLUSIVE
    return BETTER if (low > 1.0) == higher_is_better else WORSE


def _interval(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> tuple[float, float]:
    def ratio(
        x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], axis: int = -1
    ) -> npt.NDArray[np.float64]:
        return np.asarray(np.median(y, axis=axis) / np.median(x, axis=axis))

    interval = bootstrap(
        (a, b),
        ratio,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _values(table: pd.DataFrame, who: dict[str, str], metric: str) -> npt.NDArray[np.float64]:
    chosen = table
    for key in IDENTITY:
        chosen = chosen[chosen[key] == who[key]]
    return np.asarray(chosen[metric].dropna().to_numpy(dtype=float))
