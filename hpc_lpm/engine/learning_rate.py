"""The learning rate as a function of an update's index alone.

Stages that update at different times therefore agree on the rate of every update without exchanging
messages.
"""

import math

from hpc_lpm.options import LearningRateSettings


def rate_factor(settings: LearningRateSettings, update: int, updates: int) -> float:
    """Return the factor that multiplies the optimizer's rate at one update.

    With w updates of warm-up the first w factors are 1/w, 2/w, ..., 1. After them `linear` and
    `cosine` (Loshchilov and Hutter, SGDR, 2017, without restarts) go from 1 towards the final
    factor, which they would reach at the update after the last one; `step` multiplies by its factor
    once for every milestone passed.

    Args:
        settings: the schedule and its warm-up.
        update: index of the update, counted from 0.
        updates: number of updates of the whole run, more than those of the warm-up.
    """
    warmup = settings.warmup_steps
    if update < warmup:
        return (update + 1) / warmup
    done = (update - warmup) / (updates - warmup)
    final = settings.final_factor
    match settings.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 + (final - 1.0) * done
        case "cosine":
            return final + (1.0 - final) * (1.0 + math.cos(math.pi * done)) / 2.0
        case "step":
            passed = sum(milestone <= update for milestone in settings.milestones)
            return math.prod([settings.factor] * passed)
