"""How the trials of a campaign update their weights: the options of each strategy's command.

A campaign races strategies that cannot all do the same. What one of them has no use for is left
out of its command: the discount where nothing lags. Where one can clip in one way only, it does.
"""

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.engine.update_rules import (
    CLIPS_GLOBALLY,
    check_update_rules,
    check_warmup,
    lags,
)
from hpc_lpm.errors import InputError
from hpc_lpm.options import ClipScope, LearningRateSettings, OptimizerSettings
from hpc_lpm.planning.options import OPTIMIZER_COPIES, OTHER_OPTIMIZER


def update_arguments(campaign: Campaign, strategy: str) -> list[str]:
    """Return the options of `hpc-lpm train` beyond name, rate, momentum and decay."""
    arguments = []
    for name, value in campaign.optimizer.options.items():
        arguments += ["--optimizer-option", f"{name}={_text(value)}"]
    arguments += _learning_rate_arguments(campaign.learning_rate)
    if campaign.clip_norm is not None:
        arguments += ["--clip-norm", str(campaign.clip_norm)]
        arguments += ["--clip-scope", _clip_scope(campaign, strategy)]
    if campaign.lr_discount and lags(strategy):
        arguments += ["--lr-discount"]
    return arguments


def describe_updates(campaign: Campaign) -> dict[str, str]:
    """Return what a report says about optimizer, learning rate and clipping, by name."""
    optimizer = campaign.optimizer.model_dump()
    named = {**optimizer, **optimizer.pop("options")}
    described = {"optimizer": ", ".join(f"{key} {_text(value)}" for key, value in named.items())}
    if rate := _learning_rate_arguments(campaign.learning_rate):
        described["learning rate"] = " ".join(rate)
    if campaign.lr_discount:
        described["discount of the learning rate"] = ", ".join(
            strategy for strategy in campaign.strategies if lags(strategy)
        )
    if campaign.clip_norm is not None:
        scopes = {strategy: _clip_scope(campaign, strategy) for strategy in campaign.strategies}
        described["clipping"] = f"to norm {campaign.clip_norm:g}: " + ", ".join(
            f"{strategy} {scope}" for strategy, scope in scopes.items()
        )
    return described


def planned_optimizer(optimizer: OptimizerSettings) -> str:
    """Return the name by which `hpc-lpm plan` knows what memory the optimizer's state takes."""
    name = optimizer.name.lower()
    return name if name in OPTIMIZER_COPIES else OTHER_OPTIMIZER


def check_update_options(campaign: Campaign) -> None:
    """Check optimizer, clipping, discount and warm-up for every strategy of the campaign.

    Raises:
        InputError: if one of them is not accepted.
    """
    from hpc_lpm.engine.optimizer import check_optimizer

    check_optimizer(campaign.optimizer)
    if campaign.lr_discount and not any(lags(strategy) for strategy in campaign.strategies):
        raise InputError(
            "lr_discount is set, but nothing lags in any strategy of the campaign "
            f"({', '.join(campaign.strategies)}): remove it, or race fbp."
        )
    for strategy in campaign.strategies:
        check_update_rules(
            strategy,
            clip_norm=campaign.clip_norm,
            clip_scope=_clip_scope(campaign, strategy),
            lr_discount=campaign.lr_discount and lags(strategy),
        )
    if campaign.steps is not None:
        check_warmup(campaign.learning_rate, campaign.steps)


def _clip_scope(campaign: Campaign, strategy: str) -> ClipScope:
    clips = campaign.clip_norm is not None
    return "global" if clips and strategy in CLIPS_GLOBALLY else campaign.clip_scope


def _learning_rate_arguments(settings: LearningRateSettings) -> list[str]:
    if settings == LearningRateSettings():
        return []
    arguments = ["--lr-schedule", settings.schedule, "--warmup-steps", str(settings.warmup_steps)]
    arguments += ["--lr-final-factor", str(settings.final_factor)]
    if settings.milestones:
        arguments += ["--lr-milestones", _text(settings.milestones)]
    return [*arguments, "--lr-factor", str(settings.factor)]


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
