"""Expectations that no result can ever meet or fail, told before hours are spent on a campaign."""

from collections.abc import Sequence

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import Contestant, contestant_processes, contestant_stages
from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.metrics import ACCURACY, TRAFFIC
from hpc_lpm.campaign.quality import metric_named
from hpc_lpm.campaign.sections import Expectation
from hpc_lpm.campaign.trials import trials_of
from hpc_lpm.errors import InputError


def pairs_of(campaign: Campaign, expectation: Expectation) -> list[tuple[Entrant, Entrant]]:
    """Return the pairs of entrants that an expectation concerns, in the order of the matrix."""
    matrix = list(dict.fromkeys(Entrant.of(trial) for trial in trials_of(campaign)))
    return [
        (who, rival)
        for who in matrix
        if who.name == expectation.strategy
        for rival in filter(who.meets, matrix)
        if rival.name == expectation.relative_to
    ]


def why_never_judged(campaign: Campaign, expectation: Expectation) -> str | None:
    """Return why no result can be held against an expectation, None if one can."""
    first, second = expectation.strategy, expectation.relative_to
    if first == second:
        return f"{first} is compared with itself"
    if not pairs_of(campaign, expectation):
        return f"{first} and {second} never meet in a race"
    metric = metric_named(expectation.metric)
    if metric.of_target and campaign.target is None:
        return "the campaign has no target"
    for contestant in campaign.contestants:
        if contestant.label in (first, second):
            if metric.of_devices and _is_played(campaign, contestant):
                return f"one process plays all devices of {contestant.label}"
            if metric is TRAFFIC and _sends_nothing(campaign, contestant):
                return (
                    f"{contestant.label} sends nothing, so that the ratio is no number or always 0"
                )
    return None


def _is_played(campaign: Campaign, contestant: Contestant) -> bool:
    devices = contestant.entry.ranks(contestant_stages(campaign, contestant))
    return contestant_processes(campaign, contestant) < devices


def _sends_nothing(campaign: Campaign, contestant: Contestant) -> bool:
    entry = contestant.entry
    return entry.ranks(contestant_stages(campaign, contestant)) == 1 or entry.independent


def check_expectations(campaign: Campaign, without_accuracy: Sequence[str]) -> None:
    """Check that every expectation can be judged.

    Args:
        campaign: whose names have been checked.
        without_accuracy: the races, as `MODEL on DATASET`, in which no prediction is right or
            wrong.

    Raises:
        InputError: naming the expectation, why it cannot be judged, and what to do.
    """
    for expectation in campaign.expect:
        why = why_never_judged(campaign, expectation)
        if without_accuracy and metric_named(expectation.metric) is ACCURACY:
            why = why or f"{without_accuracy[0]} has no accuracy"
        if why is not None:
            raise InputError(
                f"expect has {expectation.metric} of {expectation.strategy} over that of "
                f"{expectation.relative_to}, which can never be judged, because {why}: remove it "
                "or name another metric or contestant."
            )
