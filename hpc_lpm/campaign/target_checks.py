"""Checks that the runs of a campaign will have what its target asks of them."""

import math

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import contestant_settings
from hpc_lpm.campaign.curves import default_window
from hpc_lpm.campaign.target import BASELINE, TRAIN_LOSS, Target, is_share
from hpc_lpm.engine.evaluation import VALIDATION
from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.errors import InputError, closest
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.losses import is_never_negative


def check_target(campaign: Campaign) -> None:
    """Check what a target asks of the contestants.

    Raises:
        InputError: if its value follows from a baseline that does not run, its metric from a part
            of the data that is not held out, or its window smooths nothing or a whole run.
    """
    target = campaign.target
    if target is None:
        return
    if target.value == BASELINE and not any(each.entry.baseline for each in campaign.contestants):
        names = [name for name, each in STRATEGIES.items() if each.baseline]
        raced = ", ".join(contestant.label for contestant in campaign.contestants)
        raise InputError(
            f"target has the value {BASELINE}, but none of the strategies of the campaign "
            f"({raced}) is one that others are measured by: add {' or '.join(names)}, or give a "
            "number."
        )
    if target.window is not None and target.metric != TRAIN_LOSS:
        raise InputError(
            f"target has the window {target.window}, but {target.metric} is not smoothed, only "
            f"{TRAIN_LOSS} is: leave window out."
        )
    for contestant in campaign.contestants:
        # How many steps epochs have is known only once the data have been read.
        steps = contestant_settings(campaign, contestant).steps
        if target.window is not None and steps is not None and steps <= target.window:
            raise InputError(
                f"target has the window {target.window}, but runs of {contestant.label} have "
                f"{steps} steps, of which no more than one mean would be left: take a smaller one, "
                f"or leave it out for a twentieth of the longest run ({default_window(steps)})."
            )
    evaluated = target.of_evaluations
    if evaluated is None or evaluated[0] != VALIDATION:
        return
    for contestant in campaign.contestants:
        if not contestant_settings(campaign, contestant).validation:
            raise InputError(
                f"target has the metric {target.metric}, but {contestant.label} holds no samples "
                "out for validation: set validation to a share such as 0.1, or take "
                f"test_{evaluated[1]}."
            )


def check_target_metric(campaign: Campaign, model: LayeredModel, dataset: str) -> None:
    """Check that training a model, or its evaluations, can find what a target asks for.

    Raises:
        InputError: naming what they find, or that the metric never has the value.
    """
    if campaign.target is None:
        return
    of_loss = 0.0 if is_never_negative(model.loss) else -math.inf
    evaluated = campaign.target.of_evaluations
    if evaluated is None:
        _check_value(campaign.target, of_loss, math.inf)
        return
    part, name = evaluated
    found = ["loss", *(metric.name for metric in model.evaluation_metrics)]
    if name not in found:
        offered = [f"{part}_{each}" for each in found]
        raise InputError(
            f"target has the metric {campaign.target.metric}, which {model.name} on {dataset} does "
            f"not have{closest(campaign.target.metric, offered)}: accepted are {TRAIN_LOSS}, "
            f"{', '.join(offered)}, or add it under metric."
        )
    metric = next((each for each in model.evaluation_metrics if each.name == name), None)
    if metric is None:
        _check_value(campaign.target, of_loss, math.inf)
        return
    of_mean_loss = metric.of_mean(of_loss) if metric.function is None else -math.inf
    lowest = max(metric.lowest, of_mean_loss)
    _check_value(campaign.target, lowest, metric.highest, at_once=metric.higher_is_better)


def _check_value(target: Target, lowest: float, highest: float, *, at_once: bool = False) -> None:
    """Refuse a value that a metric never has; `at_once` refuses the lowest one too.

    Raises:
        InputError: naming the values that it can have.
    """
    if target.value == BASELINE:
        return
    value = float(target.value)
    within = lowest < value if at_once else lowest <= value
    if within and value <= highest:
        return
    said = f"target has the value {value:g}, which {target.metric} "
    if is_share(target.metric) and highest == 1.0:
        example = f"write {value / 100:g}" if 1 < value <= 100 else "write 0.95 for 95 %"
        raise InputError(f"{said}never has, since it is a share above 0 and up to 1: {example}.")
    bound = f"above {highest:g}" if value > highest else f"below {lowest:g}"
    raise InputError(f"{said}never has, since it is never {bound}: give one that it can reach.")
