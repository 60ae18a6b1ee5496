"""Judges what a campaign expects of its results."""

from dataclasses import dataclass

import pandas as pd

from hpc_lpm.campaign.config import Campaign, Expectation
from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.metrics import METRICS
from hpc_lpm.campaign.statistics import Estimate, paired_ratio
from hpc_lpm.campaign.trials import trials_of


@dataclass(frozen=True)
class Verdict:
    """Whether an expectation held between two contestants; `ratio` is None without a pair."""

    expectation: Expectation
    where: str
    ratio: Estimate | None

    @property
    def held(self) -> bool:
        """The median of the paired ratios reaches the bound."""
        return self.ratio is not None and self.ratio.median >= self.expectation.at_least

    def sentence(self) -> str:
        """Return what was expected and what was found."""
        expected = self.expectation
        what = f"{expected.metric} of {expected.strategy} over that of {expected.relative_to}"
        if self.ratio is None:
            return f"{what} ({self.where}) cannot be judged: no pair of runs is there"
        outcome = "holds" if self.held else "does not hold"
        bound = f"expected at least {expected.at_least:g}"
        return f"{what} ({self.where}) is {self.ratio.text(3)}, {bound}: {outcome}"


def judge(campaign: Campaign, summary: pd.DataFrame) -> list[Verdict]:
    """Return a verdict for every expectation and every pair of contestants that it speaks of.

    These are all pairs of the matrix, whether or not they ran: of trials that are missing, others
    of the same pair are judged, and a pair of which none is there does not hold.
    """
    matrix = list(dict.fromkeys(Entrant.of(trial) for trial in trials_of(campaign)))
    verdicts: list[Verdict] = []
    for expectation in campaign.expect:
        metric = METRICS.named(expectation.metric)
        pairs = [
            (who, rival)
            for who in matrix
            if who.name == expectation.strategy
            for rival in filter(who.meets, matrix)
            if rival.name == expectation.relative_to
        ]
        for who, rival in pairs:
            planner = who.planner or rival.planner
            where = ", ".join(filter(None, [who.model, who.dataset, planner]))
            ratio = paired_ratio(summary, who, rival, metric.name)
            verdicts.append(Verdict(expectation, where, ratio))
        if not pairs:
            verdicts.append(Verdict(expectation, "the whole campaign", None))
    return verdicts
