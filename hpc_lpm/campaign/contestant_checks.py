"""Checks what a campaign says of its contestants, as far as that takes neither files nor data."""

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import (
    LENGTHS,
    Contestant,
    contestant_cut_into,
    contestant_cut_only_at,
    contestant_lengths,
    contestant_processes,
    contestant_runs,
    contestant_settings,
    contestant_stages,
    contestant_tuning,
    in_file_words,
)
from hpc_lpm.campaign.tuning.candidates import candidates_of
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.errors import InputError


def check_contestants(campaign: Campaign) -> None:
    """Check the settings of each contestant, as far as that takes neither files nor data.

    Raises:
        InputError: naming the key, what was found and what is accepted.
    """
    for name, value in campaign.own.items():
        _check_taken(campaign, name, value)
    if (campaign.cuts or campaign.cut_only_at) and not any(
        contestant.entry.needs_plan for contestant in campaign.contestants
    ):
        raise InputError(
            f"{'cuts' if campaign.cuts else 'cut_only_at'} is set, but no strategy of the campaign "
            "cuts the model into stages: remove it, or race one that does, such as fbp."
        )
    for contestant in campaign.contestants:
        try:
            ranks = contestant.entry.ranks(contestant_stages(campaign, contestant))
            stages = contestant_cut_into(campaign, contestant)
            contestant_cut_only_at(campaign, contestant)
            contestant_runs(contestant)
            contestant_processes(campaign, contestant)
            for length in contestant_lengths(campaign, contestant):
                settings = contestant_settings(campaign, contestant, length=length)
                _check_keeps(campaign, contestant, settings)
                contestant.entry.check(
                    PlannedRun(
                        settings,
                        model=None,
                        ranks=ranks,
                        stages=stages,
                        steps=settings.steps,
                        epochs=settings.epochs,
                    )
                )
            _check_lengths(campaign, contestant)
            if contestant_tuning(campaign, contestant) is not None:
                candidates_of(campaign, contestant)
        except InputError as error:
            raise InputError(in_file_words(str(error), contestant.strategy)) from None


def _check_lengths(campaign: Campaign, contestant: Contestant) -> None:
    """Refuse further lengths that say nothing: without a target, or of an equal schedule."""
    lengths = contestant_lengths(campaign, contestant)[:-1]
    if not lengths:
        return
    settings = contestant_settings(campaign, contestant)
    said = f"{LENGTHS} of {contestant.label} is {lengths}, but"
    if campaign.target is None:
        raise InputError(
            f"{said} they serve a target alone: add one, such as "
            f"target: {{metric: train_loss, value: baseline}}, or leave {LENGTHS} out."
        )
    if settings.learning_rate.schedule == "constant":
        raise InputError(
            f"{said} its learning rate is constant, under which a long run passes through all "
            f"shorter ones: leave {LENGTHS} out."
        )
    usual = settings.epochs if settings.epochs is not None else settings.steps
    if usual in lengths:
        raise InputError(
            f"{said} {usual} is the usual length of its runs, which is run anyway: leave it out."
        )


def _check_keeps(campaign: Campaign, contestant: Contestant, settings: TrainSettings) -> None:
    if not campaign.keep:
        return
    kept = f"keep is [{', '.join(campaign.keep)}], but {contestant.label}"
    if contestant.entry.independent:
        raise InputError(f"{kept} trains no model of its own: leave one of the two out.")
    if not settings.checkpoint_epochs:
        raise InputError(
            f"{kept} has checkpoint_epochs 0, which saves nothing at the end: leave it out."
        )


def _check_taken(campaign: Campaign, name: str, value: object) -> None:
    if any(contestant.entry.takes(name) for contestant in campaign.contestants):
        return
    takers = [other for other, each in STRATEGIES.items() if each.takes(name)]
    if value == STRATEGIES.named(takers[0]).options.model_fields[name].default:
        return
    raced = ", ".join(contestant.strategy for contestant in campaign.contestants)
    raise InputError(
        f"{name} is set, but no strategy of the campaign takes it ({raced}): remove it, or race "
        f"{' or '.join(takers)}."
    )
