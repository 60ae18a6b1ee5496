"""Describes for a report how the trials of a campaign update their weights."""

from typing import Any

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import contestant_settings
from hpc_lpm.options import LearningRateSettings


def describe_updates(campaign: Campaign) -> dict[str, str]:
    """Describe optimizer, learning rate, clipping and the contestants' settings, by name."""
    settings = {
        contestant.label: contestant_settings(campaign, contestant)
        for contestant in campaign.contestants
    }
    named = {
        **campaign.optimizer.model_dump(exclude={"options"}),
        **campaign.optimizer.options,
    }
    told = (
        f"{key.replace('_', ' ')} {_text(value)}" for key, value in named.items() if value != ()
    )
    described = {"optimizer": ", ".join(told)}
    if campaign.learning_rate != LearningRateSettings():
        rate = campaign.learning_rate.model_dump()
        described["learning rate"] = ", ".join(
            f"{key.replace('_', ' ')} {_text(value)}" for key, value in rate.items() if value != ()
        )
    clipped = {label: each for label, each in settings.items() if each.clip_norm is not None}
    if clipped:
        described["clipping"] = ", ".join(
            f"{label} {each.clip_scope} to norm {each.clip_norm:g}"
            for label, each in clipped.items()
        )
    for name, value in campaign.own.items():
        takers = [label for label, each in settings.items() if hasattr(each.own, name)]
        if takers:
            described[name.replace("_", " ")] = f"{_text(value)} ({', '.join(takers)})"
    for contestant in campaign.contestants:
        if contestant.overrides:
            described[f"settings of {contestant.label}"] = ", ".join(
                f"{name} {_text(value)}" for name, value in contestant.overrides.items()
            )
    return described


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(str(part) for part in value)
    if isinstance(value, dict):
        return " ".join(f"{name} {_text(part)}" for name, part in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)
