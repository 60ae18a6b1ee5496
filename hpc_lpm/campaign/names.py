"""Checks that everything a campaign names exists and fits together."""

from pathlib import Path

from hpc_lpm.campaign.config import Campaign, read_campaign
from hpc_lpm.campaign.update_options import check_update_options
from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.registry import strategy_named
from hpc_lpm.errors import InputError
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.planners.registry import planner_named


def check_names(campaign: Campaign, where: str) -> None:
    """Check models, data sets, strategies, planners and optimizer; `where` names the file.

    Nothing is loaded, so data that are not on this machine are not missed.

    Raises:
        InputError: if one of them does not exist, or a model does not suit a data set.
    """
    try:
        for strategy in campaign.strategies:
            strategy_named(strategy)
        for planner in campaign.planners:
            planner_named(planner)
        check_update_options(campaign)
        for dataset in campaign.datasets:
            shape = dataset_shape(dataset)
            for model in campaign.models:
                create_model(model, shape)
    except InputError as error:
        raise InputError(f"campaign file {where}: {error}") from None


def check_installed(campaign: Campaign, where: str) -> None:
    """Check that the optional packages behind the strategies are there.

    Raises:
        InputError: if one is missing.
    """
    for name in campaign.strategies:
        strategy = strategy_named(name)
        if not strategy.available():
            raise InputError(
                f"campaign file {where} races {name}, whose package {strategy.package} is not "
                f"installed in this environment: run `make setup`, or remove {name} from its "
                "strategies."
            )


def read_checked_campaign(path: Path) -> Campaign:
    """Read a campaign file and check its names.

    Raises:
        InputError: as `read_campaign` and `check_names`.
    """
    campaign = read_campaign(path)
    check_names(campaign, str(path))
    return campaign
