"""Sentences that state what a campaign found, computed from its tables."""

import pandas as pd

from hpc_lpm.campaign.entrants import Entrant, baseline_of, is_proposed, rival_of
from hpc_lpm.campaign.metrics import ACCURACY, THROUGHPUT, Metric
from hpc_lpm.campaign.statistics import entrants_in, paired_difference, paired_ratio, unpaired


def speed_sentence(
    summary: pd.DataFrame, entrants: list[Entrant], medians: dict[Entrant, float]
) -> str:
    """State how fast the proposed method, or else the fastest entrant, is against each rival.

    Args:
        summary: one row per run.
        entrants: all of one race.
        medians: the median throughput of each that has one, in samples per second.
    """
    model, dataset = entrants[0].race
    entrants = [who for who in entrants if who in medians]
    if not entrants:
        return f"No run of {model} on {dataset} says how fast devices are."
    ours = [who for who in entrants if is_proposed(who)]
    hero = max(ours or entrants, key=lambda who: medians[who])
    parts: list[str] = []
    pairs = 0
    for rival in entrants:
        # Of a rival that ran under several planners, the fastest counts.
        better = [c for c in entrants if c.name == rival.name]
        if rival.name == hero.name or rival != max(better, key=lambda c: medians[c]):
            continue
        found = paired_ratio(summary, hero, rival, THROUGHPUT.name)
        if found:
            pairs = max(pairs, found.n)
            of = rival.name if not parts else f"that of {rival.name}"
            parts.append(f"{found.median:.2f} times {'the speed of ' if not parts else ''}{of}")
    subject = f"{hero.label} trains {hero.model} on {hero.dataset}"
    rate = f"{medians[hero]:.0f} samples per second"
    if not parts:
        return f"{subject} at {rate}."
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    runs = f"{pairs} pairs of runs" if pairs != 1 else "1 pair of runs"
    return f"{subject} at {listed} (median of {runs}, {rate})."


def quality_sentence(
    summary: pd.DataFrame, entrants: list[Entrant], who: Entrant, quality: Metric
) -> str | None:
    """State how the quality of `who` differs from the baseline's; None if that is unknown."""
    baseline = baseline_of(entrants, who)
    if baseline is None or baseline == who:
        return None
    found = paired_difference(summary, who, baseline, quality.name)
    if found is None:
        return None
    title = "test accuracy" if quality == ACCURACY else quality.title
    unit = " points" if quality.compared_as == "points" else ""
    return (
        f"The final {title} of {who.label} minus that of {baseline.label} is "
        f"{found.text(quality.digits, quality.scale, unit)}."
    )


def unpaired_sentences(summary: pd.DataFrame) -> list[str]:
    """Name the entrants that have no ratio to another, since they were not trained beside it.

    Baseline and established rival of each are looked at.
    """
    found: dict[tuple[Entrant, Entrant], int] = {}
    entrants = entrants_in(summary)
    for who in entrants:
        for other in (baseline_of(entrants, who), rival_of(entrants, who)):
            if other is None or other == who or (other, who) in found:
                continue
            if count := unpaired(summary, who, other, THROUGHPUT.name):
                found[who, other] = count
    return [
        f"{who.label} is not paired with {other.label} on {' and '.join(who.race)} in {count} of "
        "their seeds and repeats: they were trained in different calls of snakemake, between which "
        "the speed of a machine drifts. Set `again: 1` for both, and each runs once more beside "
        "the other"
        for (who, other), count in found.items()
    ]
