"""How a quantity changed from campaign A to campaign B, and what may be said of it."""

from dataclasses import dataclass
from typing import Literal

from hpc_lpm.campaign.comparison.intervals import ConfidenceInterval
from hpc_lpm.campaign.metrics import Quantity

Outcome = Literal["better", "worse", "inconclusive"]

ROUNDING = 1e-9
"""By how much ratios and shares that are equal may differ after some arithmetic."""


@dataclass(frozen=True)
class Change:
    """How a quantity changed, B against A.

    `value` is B / A, or B - A where the quantity is compared so, in percentage points for shares;
    None if there is nothing to compare. `low` and `high` bound the same number with 95 %
    confidence; where they are None, `note` says why.
    """

    quantity: Quantity
    value: float | None
    low: float | None
    high: float | None
    verdict: Outcome
    note: str

    @property
    def metric(self) -> str:
        """Name of the quantity."""
        return self.quantity.name

    @property
    def in_points(self) -> bool:
        """The change is a difference in percentage points: near 1, ratios of shares say nothing."""
        return self.quantity.compared_as == "points"

    @property
    def ratio(self) -> float | None:
        """The value if it is a ratio."""
        return None if self.quantity.subtracted else self.value

    @property
    def difference(self) -> float | None:
        """The value if it is a difference in the quantity's own unit."""
        return self.value if self.quantity.compared_as == "difference" else None

    @property
    def difference_points(self) -> float | None:
        """The value if it is a difference in percentage points."""
        return self.value if self.in_points else None

    def number(self) -> str:
        """Return e.g. `1.034`, or `+0.28` for points."""
        return "-" if self.value is None else self._text(self.value)

    def text(self) -> str:
        """Return e.g. `1.034` or `+0.28 points`."""
        unit = " points" if self.in_points and self.value is not None else ""
        return f"{self.number()}{unit}"

    def interval_text(self) -> str:
        """Return e.g. `1.012 to 1.055`, or why there is no interval."""
        if self.low is None or self.high is None:
            return self.note
        return f"{self._text(self.low)} to {self._text(self.high)}"

    def document(self) -> dict[str, object]:
        """Return the change as JSON; docs/reference/files.md describes the keys."""
        return {
            "metric": self.metric,
            "ratio": self.ratio,
            "difference": self.difference,
            "difference_points": self.difference_points,
            "low": self.low,
            "high": self.high,
            "verdict": self.verdict,
            "note": self.note,
        }

    def _text(self, value: float) -> str:
        if self.in_points:
            return f"{value:+.2f}"
        return f"{value:+.4g}" if self.quantity.subtracted else f"{value:.3f}"


def change_of(
    quantity: Quantity, value: float | None, interval: ConfidenceInterval | None, note: str
) -> Change:
    """Return a change and its verdict.

    Args:
        quantity: what changed.
        value: the ratio, or the difference of two shares; None if there is nothing to compare.
        interval: the 95 % confidence interval of the value, None if there is none.
        note: why there is none; not used if there is one.
    """
    factor = 100.0 if quantity.compared_as == "points" else 1.0
    neutral = 0.0 if quantity.subtracted else 1.0
    return Change(
        quantity=quantity,
        value=None if value is None else factor * value,
        low=factor * interval[0] if interval else None,
        high=factor * interval[1] if interval else None,
        verdict=_verdict(quantity, neutral, interval),
        note="" if interval else note,
    )


def _verdict(quantity: Quantity, neutral: float, interval: ConfidenceInterval | None) -> Outcome:
    # Only an interval that excludes the value of no change, by more than rounding, decides.
    if interval is None or interval[0] - ROUNDING <= neutral <= interval[1] + ROUNDING:
        return "inconclusive"
    return "better" if (interval[0] > neutral) == (quantity.better == "higher") else "worse"
