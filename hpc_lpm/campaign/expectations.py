"""Judges whether the results of a campaign meet what it expects of them."""

from dataclasses import dataclass

import pandas as pd

from hpc_lpm.campaign.absent import absent_contestants
from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.quality import metric_named
from hpc_lpm.campaign.sections import Expectation
from hpc_lpm.campaign.statistics import Estimate, paired, paired_ratio, runs_of, unpaired
from hpc_lpm.campaign.unjudgeable import pairs_of, why_never_judged


@dataclass(frozen=True)
class Verdict:
    """Whether an expectation held between two entrants of a race.

    `ratio` is None if it cannot be judged, and `reason` then says why.
    """

    expectation: Expectation
    where: str
    ratio: Estimate | None
    reason: str = ""

    @property
    def held(self) -> bool:
        """The median of the paired ratios is within the bound."""
        return self.ratio is not None and self.expectation.held_by(self.ratio.median)

    def sentence(self) -> str:
        """Return what was expected and what was found."""
        expected = self.expectation
        what = f"{expected.metric} of {expected.strategy} over that of {expected.relative_to}"
        if self.ratio is None:
            return f"{what} ({self.where}) cannot be judged: {self.reason}"
        outcome = "holds" if self.held else "does not hold"
        bound = f"expected {expected.bound_text}"
        return f"{what} ({self.where}) is {self.ratio.text(3)}, {bound}: {outcome}"


def judge(campaign: Campaign, summary: pd.DataFrame) -> list[Verdict]:
    """Return a verdict for every expectation and every pair of entrants that it concerns.

    All pairs of the matrix are judged. Where some trials of a pair are missing, the others decide;
    where all are, for example because a package is not installed, the expectation does not hold.
    """
    not_installed = {entry.contestant for entry in absent_contestants(campaign)}
    verdicts: list[Verdict] = []
    for expectation in campaign.expect:
        metric = metric_named(expectation.metric)
        named = dict.fromkeys((expectation.strategy, expectation.relative_to))
        absent = " and ".join(name for name in named if name in not_installed)
        never = f"{absent} is not installed" if absent else why_never_judged(campaign, expectation)
        pairs = pairs_of(campaign, expectation)
        for who, rival in pairs:
            planner = who.planner or rival.planner
            where = ", ".join(filter(None, [who.model, who.dataset, planner]))
            ratio = paired_ratio(summary, who, rival, metric.name, any_call=metric.of_seed)
            reason = "" if ratio else never or _why_unjudged(summary, who, rival, metric.name)
            verdicts.append(Verdict(expectation, where, ratio, reason))
        if not pairs:
            verdicts.append(Verdict(expectation, "the whole campaign", None, never or ""))
    return verdicts


def _why_unjudged(summary: pd.DataFrame, who: Entrant, rival: Entrant, metric: str) -> str:
    """Return why there is no ratio of a metric of two entrants."""
    for each in (who, rival):
        runs = runs_of(summary, each)
        if runs.empty:
            return f"no pair of runs is there, since {each.label} has no finished run"
        if runs[metric].isna().all():
            return f"the runs of {each.label} have no {metric}"
    if unpaired(summary, who, rival, metric):
        return (
            "their runs were trained in different calls of snakemake, set `again: 1` for both to "
            "run each beside the other"
        )
    pairs = paired(summary, who, rival, metric)
    if pairs.empty:
        return "no pair of runs is there with the same seed and repeat"
    if (pairs["second"] != 0).any():
        return "neither run of a pair reached the target"
    return f"{metric} of {rival.label} is 0 in every pair of runs"
