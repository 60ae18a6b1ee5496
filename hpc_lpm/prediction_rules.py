"""The rules by which weights are predicted, and which of them is the default for an optimizer.

With u = W_before - W the last update, u' the one before it, r and r' the learning rates of both and
eta that of the next update, a rule predicts for a lag of s updates

    W - eta (c1 u/r + c2 (u/r - u'/r'))

* `last-update`: c1 = s, c2 = 0. The weights go on as they did in the last update (the general form
  of SpecTrain and PipeOptim, which write the update out for one optimizer each).
* `second-order`: c1 = s, c2 = s (s + 1) / 2. The update itself goes on changing as it did, which
  makes up for the phase by which the first rule is late (see docs/explanation/accuracy.md). From a
  lag of three on it would amplify noise, and has the coefficients of `balanced`.
* `balanced`: c1 = 0.75, 1.5 and c2 = 0.75, 1.95 for s = 1, 2, beyond that c1 = 0.7 s and c2 = s.
  Both were chosen between the sharpest curvature that the delayed recursion bears and the noise
  that the guess adds.
* `spectrain`: W - eta (gamma v + mean of the gradients accumulated so far), one step ahead, for SGD
  with momentum (Chen et al. 2018).
"""

from typing import Literal

from hpc_lpm.options import OptimizerSettings

PredictionRule = Literal["last-update", "second-order", "balanced", "spectrain"]

SPECTRAIN: PredictionRule = "spectrain"
OF_ANY_OPTIMIZER: PredictionRule = "second-order"
"""The rule where nothing is known of the optimizer, as of one that a script makes."""

OF_SGD = ("sgd", "momentum")
"""Optimizers of which `spectrain` knows the step."""

_EXACT_UP_TO = 2
"""The largest lag at which `second-order` goes on exactly as the last two updates did."""
_BALANCED = {1: (0.75, 0.75), 2: (1.5, 1.95)}

UPDATES_KEPT: dict[PredictionRule, int] = {
    "last-update": 1,
    "second-order": 2,
    "balanced": 2,
    "spectrain": 0,
}
"""Of how many past updates each rule keeps a copy, as large as the weights."""


def is_of_sgd(optimizer: OptimizerSettings) -> bool:
    """Tell if `spectrain` knows the step of an optimizer."""
    return optimizer.name.lower() in OF_SGD


def rule_of(asked: PredictionRule | None, optimizer: OptimizerSettings) -> PredictionRule:
    """Return the rule that was asked for, or the default for the optimizer."""
    if asked is not None:
        return asked
    return SPECTRAIN if is_of_sgd(optimizer) else OF_ANY_OPTIMIZER


def coefficients(rule: PredictionRule, lag: int) -> tuple[float, float]:
    """Return (c1, c2) of a rule for a lag in updates, at least 1."""
    if rule == "last-update":
        return float(lag), 0.0
    if rule == "second-order" and lag <= _EXACT_UP_TO:
        return float(lag), lag * (lag + 1) / 2
    return _BALANCED.get(lag, (0.7 * lag, float(lag)))
