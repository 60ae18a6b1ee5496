"""The trials of a campaign, in the order in which they run."""

import hashlib
import re
from dataclasses import dataclass
from itertools import product

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import (
    contestant_lengths,
    contestant_planners,
    contestant_processes,
    contestant_replicas,
    contestant_runs,
    contestant_settings,
    contestant_stages,
)

LONGEST_NAME = 150
"""Bytes of a name, which leaves room for a hash and an ending within the 255 of file systems."""


@dataclass(frozen=True)
class Trial:
    """One training run; `number` counts from 1 in the order in which trials run.

    `contestant` is the label of the strategy at its settings, and `label` adds the planner where
    the campaign races several. `planner` is None for a strategy that needs no plan, and `own` where
    the cuts are given. `micro_batch` counts samples. `again` is 0, and counts from 1 the further
    runs of a contestant that the campaign asks for; `length` is that of a run of another length
    than usual, in epochs or steps. Trials with the same (model, dataset, seed, repeat) are the
    pairs of which ratios are taken.

    `ranks` counts the devices that a trial is about, and `processes` those that it starts: one
    process may play all of them. They hold `replicas` copies of every stage.
    """

    number: int
    name: str
    model: str
    dataset: str
    strategy: str
    contestant: str
    planner: str | None
    label: str
    pipelined: bool
    ranks: int
    micro_batch: int
    seed: int
    repeat: int
    again: int = 0
    length: int | None = None
    processes: int = 1
    replicas: int = 1

    @property
    def stages(self) -> int:
        """The number of stages that the model is cut into, where there is a plan."""
        return self.ranks // self.replicas

    @property
    def played(self) -> bool:
        """Whether one process plays several devices, so that no time of it is that of them."""
        return self.processes < self.ranks


def trials_of(campaign: Campaign) -> list[Trial]:
    """Return the trials of a campaign whose names have been checked, repeat by repeat.

    The machine's speed drifts, so contestants are interleaved (A B C A B C): trials that are
    compared run close together in time.
    """
    entrants = [
        (contestant, planner, again, length, contestant_settings(campaign, contestant))
        for contestant in campaign.contestants
        for planner in contestant_planners(campaign, contestant)
        for again in contestant_runs(contestant)
        for length in contestant_lengths(campaign, contestant)
    ]
    matrix = product(
        range(campaign.repeats), campaign.seeds, campaign.models, campaign.datasets, entrants
    )
    trials: list[Trial] = []
    for repeat, seed, model, dataset, (contestant, planner, again, length, settings) in matrix:
        label = contestant.label
        ranks = contestant.entry.ranks(contestant_stages(campaign, contestant))
        replicas = contestant_replicas(campaign, contestant)
        parts = [model, dataset, label, *([planner] if planner else [])]
        several = planner in campaign.planners and len(campaign.planners) > 1
        trials.append(
            Trial(
                number=len(trials) + 1,
                name=file_name(
                    *parts,
                    f"k{ranks}",
                    *([f"x{replicas}"] if replicas > 1 else []),
                    f"seed{seed}",
                    f"repeat{repeat}",
                    *([f"again{again}"] if again else []),
                    *([f"length{length}"] if length else []),
                ),
                model=model,
                dataset=dataset,
                strategy=contestant.strategy,
                contestant=label,
                planner=planner,
                label=f"{label} ({planner})" if several else label,
                pipelined=contestant.entry.pipelined,
                ranks=ranks,
                micro_batch=max(1, settings.micro_batch_size // replicas),
                seed=seed,
                repeat=repeat,
                again=again,
                length=length,
                processes=contestant_processes(campaign, contestant),
                replicas=replicas,
            )
        )
    return trials


def file_name(*parts: str) -> str:
    """Join names into one file name that any file system takes, and that differs if they do.

    A long name keeps its start and its end around a hash of the whole.
    """
    name = "-".join(_safe(part) for part in parts)
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return f"{name[: LONGEST_NAME - 58]}-{digest}-{name[-40:].lstrip('.-')}"


def _safe(part: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", part)
    if safe == part:
        return part
    return f"{safe}_{hashlib.sha256(part.encode()).hexdigest()[:6]}"
