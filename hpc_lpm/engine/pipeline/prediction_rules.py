"""The rules by which weights are predicted, and which of them is the best for an optimizer.

With u = W_before - W the last update, u' the one before it, r and r' the learning rates of both and
eta that of the next update, a rule predicts for a lag of s updates

    W - eta (c1 u/r + c2 (u/r - u'/r'))

* `last-update`: c1 = s, c2 = 0. The weights go on as they did in the last update (the general form
  of SpecTrain and PipeOptim, which write the update out for one optimizer each).
* `second-order`: c1 = s, c2 = s (s + 1) / 2. The update itself goes on changing as it did, which
  makes up for the phase by which the first rule is late (see docs/explanation/accuracy.md).
* `spectrain`: W - eta (gamma v + mean of the gradients accumulated so far), one step ahead, for SGD
  with momentum (Chen et al. 2018).
"""

from typing import Literal

from hpc_lpm.options import OptimizerSettings

PredictionRule = Literal["last-update", "second-order", "spectrain"]

SPECTRAIN: PredictionRule = "spectrain"
OF_ANY_OPTIMIZER: PredictionRule = "second-order"
"""The rule where nothing is known of the optimizer, as of one that a script makes."""

OF_SGD = ("sgd", "momentum")
"""Optimizers of which `spectrain` knows the step."""


def rule_of(asked: PredictionRule | None, optimizer: OptimizerSettings) -> PredictionRule:
    """Return the rule that was asked for, or the one that measured best for the optimizer."""
    if asked is not None:
        return asked
    return SPECTRAIN if optimizer.name in OF_SGD else OF_ANY_OPTIMIZER


def coefficients(rule: PredictionRule, lag: int) -> tuple[float, float]:
    """Return (c1, c2) of a rule for a lag in updates, at least 1."""
    if rule == "last-update":
        return float(lag), 0.0
    return float(lag), lag * (lag + 1) / 2


def updates_kept(rule: PredictionRule) -> int:
    """Return of how many past updates a rule keeps a copy, each as large as the weights."""
    return {"spectrain": 0, "last-update": 1, "second-order": 2}[rule]
