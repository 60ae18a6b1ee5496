"""Checks that everything a campaign names exists and fits together."""

from pathlib import Path

from hpc_lpm.campaign.config import Campaign, read_campaign
from hpc_lpm.campaign.contestant_checks import check_contestants
from hpc_lpm.campaign.contestants import (
    Contestant,
    contestant_cut_into,
    contestant_cut_only_at,
    contestant_cuts,
    contestant_settings,
    contestant_stages,
    in_file_words,
)
from hpc_lpm.campaign.quality import metrics_with
from hpc_lpm.campaign.target_checks import check_target, check_target_metric
from hpc_lpm.campaign.unjudgeable import check_expectations
from hpc_lpm.data.registry import dataset_shape
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import parse_identifier
from hpc_lpm.models.evaluation_metrics import EVALUATION_METRICS, evaluation_metrics_named
from hpc_lpm.models.examination import examine_layers
from hpc_lpm.models.layered import LayeredModel
from hpc_lpm.models.registry import MODELS, create_model, example_input
from hpc_lpm.options import ACCURACY
from hpc_lpm.planning.allowed_cuts import AllowedCuts
from hpc_lpm.planning.cut_names import TYPE_PREFIX
from hpc_lpm.planning.planners.registry import planner_named


def check_names(campaign: Campaign, where: str) -> None:
    """Check models, data sets, strategies, planners, metrics and optimizer of the file `where`.

    Data sets of the toolkit are not loaded, so they need not be on this machine; only a data set of
    the user's own must be loaded to know its shape.

    Args:
        campaign: what the file holds.
        where: names the file in errors.

    Raises:
        InputError: if one of them does not exist, a model does not suit a data set, a layer of the
            user's own cannot run on what it is given, or an expectation can never be judged.
    """
    without_accuracy: list[str] = []
    try:
        check_contestants(campaign)
        for planner in campaign.planners:
            planner_named(planner)
        metrics_with(campaign.further_metrics)
        _check_metric_names(campaign)
        check_target(campaign)
        losses = [contestant_settings(campaign, each).loss for each in campaign.contestants]
        loss = next(filter(None, losses), None)
        for dataset in campaign.datasets:
            shape = dataset_shape(dataset, campaign.data_dir)
            for name in campaign.models:
                model = create_model(name, shape, loss=loss, metrics=campaign.metric)
                if ACCURACY not in {metric.name for metric in model.evaluation_metrics}:
                    without_accuracy.append(f"{name} on {dataset}")
                check_target_metric(campaign, model, dataset)
                for contestant in campaign.contestants:
                    _check_contestant(campaign, contestant, model, dataset)
                if not MODELS.comes_with_toolkit(parse_identifier(name).name):
                    samples = max(1, campaign.batch_size // campaign.micro_batches)
                    examine_layers(model, example_input(shape, samples))
        check_expectations(campaign, without_accuracy)
    except InputError as error:
        raise InputError(f"campaign file {where}: {error}") from None


def _check_metric_names(campaign: Campaign) -> None:
    """Refuse two metrics of one name, which would share a column of the campaign's tables."""
    known = {name: name for name in EVALUATION_METRICS.names()}
    for contestant in campaign.contestants:
        for identifier in contestant_settings(campaign, contestant).metric:
            [metric] = evaluation_metrics_named([identifier])
            other = known.setdefault(metric.name, identifier)
            if other != identifier:
                raise InputError(
                    f"metric of {contestant.label} is {identifier!r}, which has the name "
                    f"{metric.name!r} as {other!r} does, and both would share a column: rename "
                    "the function, or leave one of the two out."
                )


def _check_contestant(
    campaign: Campaign, contestant: Contestant, model: LayeredModel, dataset: str
) -> None:
    # Imported here, because it imports torch.
    from hpc_lpm.engine.checks import check_run
    from hpc_lpm.engine.parameter_groups import check_patterns

    settings = contestant_settings(campaign, contestant, model=model.name, dataset=dataset)
    ranks = contestant.entry.ranks(contestant_stages(campaign, contestant))
    stages = contestant_cut_into(campaign, contestant)
    pieces = contestant.entry.stages_on(settings, stages)
    if pieces > len(model.layers):
        held = contestant.entry.stages_on(settings, 1)
        each = f", {held} on each device" if held > 1 else ""
        fewer = ", or fewer chunks" if contestant.entry.takes("chunks") else ""
        raise InputError(
            f"{contestant.label} is to cut {model.name} into {pieces} stages{each}, but it has "
            f"{len(model.layers)} layers: use at most {len(model.layers) // held} "
            f"{'devices' if held > 1 else 'stages'}{fewer}."
        )
    try:
        _check_cuts(campaign, contestant, model, pieces)
        check_run(
            PlannedRun(settings, model, ranks, stages, steps=settings.steps, epochs=settings.epochs)
        )
        check_patterns(model, settings.optimizer)
    except InputError as error:
        raise InputError(in_file_words(str(error), contestant.strategy)) from None


def _check_cuts(
    campaign: Campaign, contestant: Contestant, model: LayeredModel, stages: int
) -> None:
    """Check cuts and patterns against the model, as far as can be told without building layers."""
    cuts = contestant_cuts(campaign, contestant)
    patterns = contestant_cut_only_at(campaign, contestant)
    # What class a layer is that names no modules, only its profile tells.
    unknown = any(not layer.ends for layer in model.layers)
    told = [each for each in patterns if not (unknown and each.startswith(TYPE_PREFIX))]
    allowed = AllowedCuts.of(model.name, model.layers, told)
    if told == list(patterns):
        allowed.check_stages(stages)
    else:
        allowed = AllowedCuts.of(model.name, model.layers)
    if cuts:
        allowed.own(cuts)


def read_checked_campaign(path: Path) -> Campaign:
    """Read a campaign file and check its names.

    Raises:
        InputError: as `read_campaign` and `check_names` do.
    """
    campaign = read_campaign(path)
    check_names(campaign, str(path))
    return campaign
