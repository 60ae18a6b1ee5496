"""Checks that everything a campaign names exists and fits together."""

from pathlib import Path

from hpc_lpm.campaign.config import Campaign, read_campaign
from hpc_lpm.campaign.contestants import (
    Contestant,
    check_contestants,
    contestant_settings,
    contestant_stages,
    in_file_words,
)
from hpc_lpm.campaign.metrics import metrics_with
from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.errors import InputError
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.planners.registry import planner_named


def check_names(campaign: Campaign, where: str) -> None:
    """Check models, data sets, strategies, planners, metrics and optimizer of the file `where`.

    Data sets of the toolkit are not loaded, so they need not be on this machine; only a data set of
    the user's own must be loaded to know its shape.

    Raises:
        InputError: if one of them does not exist, or a model does not suit a data set.
    """
    try:
        check_contestants(campaign)
        for planner in campaign.planners:
            planner_named(planner)
        metrics_with(campaign.further_metrics)
        for dataset in campaign.datasets:
            shape = dataset_shape(dataset, campaign.data_dir)
            for name in campaign.models:
                model = create_model(name, shape)
                for contestant in campaign.contestants:
                    _check_contestant(campaign, contestant, model, dataset)
    except InputError as error:
        raise InputError(f"campaign file {where}: {error}") from None


def _check_contestant(
    campaign: Campaign, contestant: Contestant, model: LayeredModel, dataset: str
) -> None:
    # Imported here, because it imports torch.
    from hpc_lpm.engine.checks import check_run

    settings = contestant_settings(campaign, contestant, model=model.name, dataset=dataset)
    ranks = contestant.entry.ranks(contestant_stages(campaign, contestant))
    stages = ranks if contestant.entry.needs_plan else 1
    if stages > len(model.layers):
        raise InputError(
            f"{contestant.label} is to cut {model.name} into {stages} stages, but it has "
            f"{len(model.layers)} layers: use at most {len(model.layers)} stages."
        )
    try:
        check_run(
            PlannedRun(settings, model, ranks, stages, steps=settings.steps, epochs=settings.epochs)
        )
    except InputError as error:
        raise InputError(in_file_words(str(error), contestant.strategy)) from None


def read_checked_campaign(path: Path) -> Campaign:
    """Read a campaign file and check its names.

    Raises:
        InputError: as `read_campaign` and `check_names` do.
    """
    campaign = read_campaign(path)
    check_names(campaign, str(path))
    return campaign
