"""What a step of a plan is expected to be worth, from measurements at other lags.

The rows that count are those of the model's family, or of all families where that one was not
measured at all; of these, those of the optimizer's family and of the recipe, or of none where
`auto` corrects nothing, with the factor of gradients that is asked for, all under double-buffered
weights or none; of these, where there are any, those of the weight policy. Rows with the same lag
of the first stage are averaged, and their intervals joined. Between two measured lags the ratio of
steps is interpolated linearly, with 1 at a lag of 0; where the end of an interval is infinite, its
inverse is. Beyond the largest measured lag nothing is known, nor below one at which the target was
not reached.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isinf

from pydantic import BaseModel, ConfigDict

from hpc_lpm.options import DOUBLE_BUFFER
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.worth.lag import Lag
from hpc_lpm.planning.worth.measured import UNSHRUNK, MeasuredSteps, Measurements
from hpc_lpm.recipes import AUTO, NO_RECIPE

_FAMILIES = {"adamw": "adam"}
"""Optimizers that count as another: AdamW is Adam but for how weights decay."""

Number = Fraction | float
"""An exact number, or the float `inf`."""


class StepWorth(BaseModel):
    """What a step is worth: synchronous steps to a target over the steps of a plan to it.

    Attributes:
        value: 1 where nothing lags, 0 where the target was not reached, None if it is unknown.
        low: the lower end of its interval, None where none was measured.
        high: its upper end.
        reason: what it rests on, or why it is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float | None
    low: float | None
    high: float | None
    reason: str


@dataclass(frozen=True)
class ExpectedSteps:
    """The steps that a plan is expected to need, as an exact multiple of the synchronous ones.

    Attributes:
        ratio: None where it is unknown, or where the target was not reached.
        worth: the same for people and files.
    """

    ratio: Fraction | None
    worth: StepWorth


@dataclass(frozen=True)
class _Ratios:
    """The ratio of steps and the ends of its interval, which are None where none is known."""

    ratio: Number
    low: Number | None
    high: Number | None

    @classmethod
    def of(cls, rows: Sequence[MeasuredSteps]) -> "_Ratios":
        """Average rows, and join their intervals."""
        lows = [row.low for row in rows if row.low is not None]
        highs = [row.high for row in rows if row.high is not None]
        ratios = [_exact(row.steps_ratio) for row in rows]
        total: Number = Fraction(0)
        for ratio in ratios:
            total += ratio
        return cls(
            total / len(rows),
            _exact(min(lows)) if lows else None,
            _exact(max(highs)) if highs else None,
        )

    def mixed(self, other: "_Ratios", share: Fraction) -> "_Ratios":
        """Return what lies between this and `other`, at a `share` from 0 to 1 of the way."""
        if not share:
            return self
        low, high = (
            None if one is None or two is None else _mixed(one, two, share)
            for one, two in ((self.low, other.low), (self.high, other.high))
        )
        return _Ratios(_mixed(self.ratio, other.ratio, share), low, high)


_SYNCHRONOUS = _Ratios(Fraction(1), Fraction(1), Fraction(1))


def family_of(optimizer: str) -> str:
    """Return the name that optimizers share whose measurements count for one another."""
    return _FAMILIES.get(optimizer.lower(), optimizer.lower())


def rows_for(
    measured: Measurements, optimizer: str, recipe: str, model: str | None = None
) -> list[MeasuredSteps]:
    """Return the rows of an optimizer's family and a recipe, with the factor that is asked for.

    With a model they are those of its family, where there are any of whatever optimizer.
    """
    rows = list(measured.rows)
    if model is not None:
        rows = _narrowed(rows, lambda row: model.lower().startswith(row.model_family.lower()))
    return [
        row
        for row in rows
        if row.recipe == recipe
        and row.gradient_shrink == measured.gradient_shrink
        and family_of(row.optimizer) == family_of(optimizer)
    ]


def expected_steps(
    measured: Measurements, lag: Lag, options: PlanOptions, model: str
) -> ExpectedSteps:
    """Look up the steps that `model` needs with a lag; the module says by which rule."""
    if not lag.largest:
        return _known(_SYNCHRONOUS, "no weights lag")
    recipe, optimizer = options.recipe, options.optimizer
    if recipe == AUTO and lag.rule_of_recipe(options) is None:
        recipe = NO_RECIPE
    double_buffered = options.weights == DOUBLE_BUFFER
    rows = [
        row
        for row in rows_for(measured, optimizer, recipe, model)
        if (row.weights == DOUBLE_BUFFER) == double_buffered
    ]
    if not rows:
        elsewhere = " of this model" if rows_for(measured, optimizer, recipe) else ""
        return _unknown(
            f"nothing is measured for {optimizer} with recipe {recipe}{_special(measured, options)}"
            f"{elsewhere} in {measured.where}"
        )
    rows = _narrowed(rows, lambda row: row.weights == options.weights)
    lags = sorted({Fraction(0), *(row.lag for row in rows)})
    points = {at: _Ratios.of([row for row in rows if row.lag == at]) for at in lags if at} | {
        Fraction(0): _SYNCHRONOUS
    }
    what, wanted = _described(rows), lag.first_stage
    if wanted > lags[-1]:
        return _unknown(
            f"the first stage lags by {float(wanted):g} updates on average, and {what} is "
            f"measured up to {float(lags[-1]):g}"
        )
    above = min(at for at in lags if at >= wanted)
    if above == wanted:
        return _known(points[above], f"measured at this lag: {what}")
    if isinf(points[above].ratio):
        return _unknown(
            f"the first stage lags by {float(wanted):g} updates on average, and at "
            f"{float(above):g} the target was not reached: {what}"
        )
    below = max(at for at in lags if at < wanted)
    return _known(
        points[below].mixed(points[above], (wanted - below) / (above - below)),
        f"interpolated between lags of {float(below):g} and {float(above):g}: {what}",
    )


def _special(measured: Measurements, options: PlanOptions) -> str:
    """Return in words what narrows the rows besides the optimizer and the recipe."""
    said = f" and weights {DOUBLE_BUFFER}" if options.weights == DOUBLE_BUFFER else ""
    if measured.gradient_shrink != UNSHRUNK:
        said += f" and gradients times {measured.gradient_shrink:g}"
    return said


def _narrowed(
    rows: list[MeasuredSteps], fits: Callable[[MeasuredSteps], bool]
) -> list[MeasuredSteps]:
    return [row for row in rows if fits(row)] or rows


def _described(rows: Sequence[MeasuredSteps]) -> str:
    """Return in words what was measured, such as `adamw on gpt, recipe none, 3 seeds`."""
    optimizers = sorted({row.optimizer for row in rows})
    families = sorted({row.model_family for row in rows})
    fewest, most = min(row.seeds for row in rows), max(row.seeds for row in rows)
    seeds = f"{most} seed{'s' * (most > 1)}" if fewest == most else f"{fewest} to {most} seeds"
    return (
        f"{' and '.join(optimizers)} on {' and '.join(families)}, recipe {rows[0].recipe}, {seeds}"
    )


def _known(ratios: _Ratios, reason: str) -> ExpectedSteps:
    never = isinf(ratios.ratio)
    worth = StepWorth(
        value=_worth(ratios.ratio),
        low=None if ratios.high is None else _worth(ratios.high),
        high=None if ratios.low is None else _worth(ratios.low),
        reason=f"the target was not reached, {reason}" if never else reason,
    )
    return ExpectedSteps(None if never else Fraction(ratios.ratio), worth)


def _unknown(reason: str) -> ExpectedSteps:
    return ExpectedSteps(None, StepWorth(value=None, low=None, high=None, reason=reason))


def _exact(value: float) -> Number:
    return value if isinf(value) else Fraction(value)


def _mixed(one: Number, two: Number, share: Fraction) -> Number:
    if isinf(one) and isinf(two):
        return one
    if isinf(one):
        return _mixed(two, one, 1 - share)
    if isinf(two):
        return one / (1 - share) if share < 1 else two
    return one + (two - one) * share


def _worth(ratio: Number) -> float:
    return 0.0 if isinf(ratio) else float(1 / ratio)
