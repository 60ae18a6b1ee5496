"""The matrix of a campaign: every run it consists of, in the order in which they run."""

import hashlib
import re
from dataclasses import dataclass

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.engine.registry import STRATEGIES


@dataclass(frozen=True)
class Trial:
    """One training run; `number` counts from 1 in the order in which trials run.

    `label` is the strategy, and the planner where the campaign races several.
    `planner` is None for a strategy that needs no plan. Trials with the same (model, dataset, seed,
    repeat) are the pairs of which ratios are taken.
    """

    number: int
    name: str
    model: str
    dataset: str
    strategy: str
    planner: str | None
    label: str
    pipelined: bool
    ranks: int
    seed: int
    repeat: int


def trials_of(campaign: Campaign) -> list[Trial]:
    """Return the trials of a campaign whose names were checked, repeat by repeat.

    The machine's speed drifts, so contestants are interleaved (A B C A B C): what is compared ran
    close together in time.
    """
    trials: list[Trial] = []
    for repeat in range(campaign.repeats):
        for seed in campaign.seeds:
            for model in campaign.models:
                for dataset in campaign.datasets:
                    for strategy in campaign.strategies:
                        entry = STRATEGIES[strategy]
                        planners = campaign.planners if entry.needs_plan else [None]
                        for planner in planners:
                            ranks = entry.ranks(campaign.stages)
                            parts = [model, dataset, strategy]
                            parts += [planner] if planner else []
                            parts += [f"k{ranks}", f"seed{seed}", f"repeat{repeat}"]
                            several = planner and len(campaign.planners) > 1
                            trials.append(
                                Trial(
                                    number=len(trials) + 1,
                                    name=file_name(*parts),
                                    model=model,
                                    dataset=dataset,
                                    strategy=strategy,
                                    planner=planner,
                                    label=f"{strategy} ({planner})" if several else strategy,
                                    pipelined=entry.pipelined,
                                    ranks=ranks,
                                    seed=seed,
                                    repeat=repeat,
                                )
                            )
    return trials


def file_name(*parts: str) -> str:
    """Join names into one that is safe in any file system and differs wherever they differ."""
    return "-".join(_safe(part) for part in parts)


def _safe(part: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", part)
    if safe == part:
        return part
    return f"{safe}_{hashlib.sha256(part.encode()).hexdigest()[:6]}"
