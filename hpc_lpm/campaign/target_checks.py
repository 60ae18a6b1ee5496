"""Checks that the runs of a campaign will have what its target asks of them."""

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import contestant_settings
from hpc_lpm.campaign.target import BASELINE, TRAIN_LOSS
from hpc_lpm.engine.evaluation import VALIDATION
from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.errors import InputError, closest
from hpc_lpm.models.layered import LayeredModel


def check_target(campaign: Campaign) -> None:
    """Check what a target asks of the contestants.

    Raises:
        InputError: if its value follows from a baseline that does not run, its metric from a part
            of the data that is not held out, or its window smooths nothing.
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
    """Check that evaluations of a model find what a target asks for.

    Raises:
        InputError: naming what they find.
    """
    evaluated = campaign.target.of_evaluations if campaign.target else None
    if campaign.target is None or evaluated is None:
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
