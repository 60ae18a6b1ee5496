"""A change of one metric from campaign A to campaign B, and what may be said of it."""

from dataclasses import dataclass
from typing import Literal

from hpc_lpm.campaign.comparison.intervals import ConfidenceInterval

Outcome = Literal["better", "worse", "inconclusive"]

SPEEDUP = "speedup_over_sequential"
METRIC_TITLES = {
    "samples_per_second": "throughput",
    SPEEDUP: "speedup",
    "test_accuracy": "accuracy",
    "peak_memory_bytes": "memory",
    "bytes_sent": "traffic",
}
LESS_IS_BETTER = frozenset({"peak_memory_bytes", "bytes_sent"})


@dataclass(frozen=True)
class Change:
    """How a metric changed, B against A.

    `ratio` is B / A; for `test_accuracy` it is None and `difference_points` is B - A in percentage
    points, for of two shares near 1 the ratio says nothing. `low` and `high` bound the same number
    with 95 % confidence; where they are None, `note` says why.
    """

    metric: str
    ratio: float | None
    difference_points: float | None
    low: float | None
    high: float | None
    verdict: Outcome
    note: str

    @property
    def value(self) -> float | None:
        """The ratio or the difference, whichever it is; None if there is nothing to compare."""
        return self.ratio if self.difference_points is None else self.difference_points

    def number(self) -> str:
        """Return e.g. `1.034`, or `+0.28` for points."""
        if self.value is None:
            return "-"
        return f"{self.value:.3f}" if self.difference_points is None else f"{self.value:+.2f}"

    def text(self) -> str:
        """Return e.g. `1.034` or `+0.28 points`."""
        return self.number() if self.difference_points is None else f"{self.number()} points"

    def interval_text(self) -> str:
        """Return e.g. `1.012 to 1.055`, or why there is no interval."""
        if self.low is None or self.high is None:
            return self.note
        if self.difference_points is None:
            return f"{self.low:.3f} to {self.high:.3f}"
        return f"{self.low:+.2f} to {self.high:+.2f}"


def change_of(
    metric: str, value: float | None, interval: ConfidenceInterval | None, note: str
) -> Change:
    """Return a change and its verdict.

    Args:
        metric: its name; of `test_accuracy` value and interval are differences of shares.
        value: the ratio or difference, None if there is nothing to compare.
        interval: with 95 % confidence, None if none can be given.
        note: why there is none; not used if there is one.
    """
    is_difference = metric == "test_accuracy"
    factor, neutral = (100.0, 0.0) if is_difference else (1.0, 1.0)
    scaled = None if value is None else factor * value
    return Change(
        metric=metric,
        ratio=None if is_difference else scaled,
        difference_points=scaled if is_difference else None,
        low=factor * interval[0] if interval else None,
        high=factor * interval[1] if interval else None,
        verdict=_verdict(metric, neutral, interval),
        note="" if interval else note,
    )


def _verdict(metric: str, neutral: float, interval: ConfidenceInterval | None) -> Outcome:
    # Only an interval that leaves out what no change looks like decides.
    if interval is None or interval[0] <= neutral <= interval[1]:
        return "inconclusive"
    return "better" if (interval[0] > neutral) != (metric in LESS_IS_BETTER) else "worse"
