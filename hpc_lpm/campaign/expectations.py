"""Judges whether the results of a campaign meet what it expects of them."""

from dataclasses import dataclass

import pandas as pd

from hpc_lpm.campaign.absent import absent_contestants
from hpc_lpm.campaign.config import Campaign, Expectation
from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.metrics import METRICS
from hpc_lpm.campaign.statistics import Estimate, paired_ratio, unpaired
from hpc_lpm.campaign.trials import trials_of


@dataclass(frozen=True)
class Verdict:
    """Whether an expectation held between two entrants of a race.

    `ratio` is None if no pair of runs is there; `absent` are those contestants of the expectation
    that are not installed, and `unpaired` counts the seeds and repeats that both have, but in
    different calls of Snakemake.
    """

    expectation: Expectation
    where: str
    ratio: Estimate | None
    absent: tuple[str, ...] = ()
    unpaired: int = 0

    @property
    def held(self) -> bool:
        """The median of the paired ratios reaches the bound."""
        return self.ratio is not None and self.ratio.median >= self.expectation.at_least

    def sentence(self) -> str:
        """Return what was expected and what was found."""
        expected = self.expectation
        what = f"{expected.metric} of {expected.strategy} over that of {expected.relative_to}"
        if self.ratio is None:
            why = "no pair of runs is there"
            if self.unpaired:
                why = (
                    "their runs were trained in different calls of snakemake, set `again: 1` for "
                    "both to run each beside the other"
                )
            if self.absent:
                why = f"{' and '.join(self.absent)} is not installed"
            return f"{what} ({self.where}) cannot be judged: {why}"
        outcome = "holds" if self.held else "does not hold"
        bound = f"expected at least {expected.at_least:g}"
        return f"{what} ({self.where}) is {self.ratio.text(3)}, {bound}: {outcome}"


def judge(campaign: Campaign, summary: pd.DataFrame) -> list[Verdict]:
    """Return a verdict for every expectation and every pair of entrants that it concerns.

    All pairs of the matrix are judged. Where some trials of a pair are missing, the others decide;
    where all are, for example because a package is not installed, the expectation does not hold.
    """
    matrix = list(dict.fromkeys(Entrant.of(trial) for trial in trials_of(campaign)))
    not_installed = {entry.contestant for entry in absent_contestants(campaign)}
    verdicts: list[Verdict] = []
    for expectation in campaign.expect:
        metric = METRICS.named(expectation.metric)
        named = dict.fromkeys((expectation.strategy, expectation.relative_to))
        absent = tuple(name for name in named if name in not_installed)
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
            apart = unpaired(summary, who, rival, metric.name)
            verdicts.append(Verdict(expectation, where, ratio, absent, apart))
        if not pairs:
            verdicts.append(Verdict(expectation, "the whole campaign", None, absent))
    return verdicts
