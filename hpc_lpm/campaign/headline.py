"""The sentences that say what a campaign found, computed from its tables."""

import pandas as pd

from hpc_lpm.campaign.figures.throughput import BASELINE
from hpc_lpm.campaign.runs import Contestant
from hpc_lpm.campaign.statistics import Estimate, paired_difference, paired_ratio

OURS = "fbp"


def as_identity(who: Contestant) -> dict[str, str]:
    """Return a contestant as the columns that identify it in tables."""
    return {
        "model": who.model,
        "dataset": who.dataset,
        "strategy": who.strategy,
        "planner": who.planner or "",
    }


def ratio(summary: pd.DataFrame, who: Contestant, rival: Contestant) -> Estimate | None:
    """Return the paired ratio of throughputs, None without a pair."""
    return paired_ratio(summary, as_identity(who), as_identity(rival), "samples_per_second")


def baseline_of(contestants: list[Contestant], who: Contestant) -> Contestant | None:
    """Return sequential training of the same model and data, None if it was not run."""
    same = [c for c in contestants if c.race == who.race and c.strategy == BASELINE]
    return same[0] if same else None


def speed_sentence(
    summary: pd.DataFrame, contestants: list[Contestant], medians: dict[Contestant, float]
) -> str:
    """Return how fast our schedule (or else the fastest contestant) is against each rival."""
    ours = [who for who in contestants if who.strategy == OURS]
    hero = max(ours or contestants, key=lambda who: medians[who])
    parts: list[str] = []
    pairs = 0
    for rival in contestants:
        # The best plan of each rival is what counts.
        better = [c for c in contestants if c.strategy == rival.strategy]
        if rival.strategy == hero.strategy or rival != max(better, key=lambda c: medians[c]):
            continue
        found = ratio(summary, hero, rival)
        if found:
            pairs = max(pairs, found.n)
            of = rival.strategy if not parts else f"that of {rival.strategy}"
            parts.append(f"{found.median:.2f} times {'the speed of ' if not parts else ''}{of}")
    subject = f"{hero.label} trains {hero.model} on {hero.dataset}"
    rate = f"{medians[hero]:.0f} samples per second"
    if not parts:
        return f"{subject} at {rate}."
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    runs = f"{pairs} pairs of runs" if pairs != 1 else "1 pair of runs"
    return f"{subject} at {listed} (median of {runs}, {rate})."


def accuracy_sentence(
    summary: pd.DataFrame, contestants: list[Contestant], who: Contestant
) -> str | None:
    """Return how the accuracy of `who` differs from sequential training, None if unknown."""
    baseline = baseline_of(contestants, who)
    if baseline is None or baseline == who:
        return None
    found = paired_difference(summary, as_identity(who), as_identity(baseline), "test_accuracy")
    if found is None:
        return None
    return (
        f"The final test accuracy of {who.label} minus that of sequential training is "
        f"{found.text(2, 100, ' points')}."
    )
