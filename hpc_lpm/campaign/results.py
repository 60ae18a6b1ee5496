"""Reads everything that is known about a campaign from its folder, and writes its tables."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hpc_lpm.campaign.absent import AbsentContestant, absent_contestants
from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.entrants import Entrant, entrant_colours
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.metrics import Metric
from hpc_lpm.campaign.quality import metrics_with
from hpc_lpm.campaign.reaching import RaceTarget, targets_of
from hpc_lpm.campaign.runs import MissingTrial, Run, read_runs
from hpc_lpm.campaign.statistics import statistics_table
from hpc_lpm.campaign.summary import (
    summarise,
    without_infinities,
    write_parquet,
    write_table,
)
from hpc_lpm.campaign.trials import Trial, trials_of
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically


@dataclass(frozen=True)
class CampaignResults:
    """A campaign, its finished runs, and the tables computed from them.

    `absent` are contestants that were not tried because they are not installed; their trials are
    not among the missing ones. `targets` has what the contestants of each race are to reach, by
    model and data set, if the campaign has a target. In `summary` what was not reached took
    infinitely long.
    """

    folder: CampaignFolder
    campaign: Campaign
    trials: list[Trial]
    runs: list[Run]
    missing: list[MissingTrial]
    absent: list[AbsentContestant]
    metrics: list[Metric]
    summary: pd.DataFrame
    statistics: pd.DataFrame
    targets: dict[tuple[str, str], RaceTarget]

    def usual_runs(self) -> list[Run]:
        """Return the runs of usual length; those of other lengths serve the target alone."""
        return [run for run in self.runs if run.trial.length is None]

    def refused_sentence(self) -> str | None:
        """Say which results were refused, and that they count for nothing; None without any."""
        refused = [missing.trial.name for missing in self.missing if missing.refused]
        if not refused:
            return None
        what = "1 result is" if len(refused) == 1 else f"{len(refused)} results are"
        return (
            f"{what} refused and left out, of {', '.join(refused)}: see the report of "
            f"{self.folder.root} for why, and call snakemake, which trains what is missing."
        )

    def colours(self) -> dict[str, str]:
        """Return the colour of every contestant by its label, whether or not it ran."""
        return entrant_colours(Entrant.of(trial) for trial in self.trials)

    def launches(self) -> dict[str, Launch]:
        """Return the launch record of every trial that has one, by the trial's name."""
        found: dict[str, Launch] = {}
        for trial in self.trials:
            try:
                found[trial.name] = Launch.read(self.folder.run(trial) / "launch.json")
            except InputError:  # run by hand, or not run
                continue
        return found


def load_results(root: Path, further_metrics: Sequence[str] = ()) -> CampaignResults:
    """Read the folder of a campaign; trials that did not finish are listed as missing.

    Args:
        root: the folder.
        further_metrics: names of metrics to compute in addition to the campaign's own.

    Raises:
        InputError: if `root` is not the folder of a campaign, or a metric cannot be computed.
    """
    folder = CampaignFolder.at(root)
    campaign = folder.read_campaign()
    trials = trials_of(campaign)
    runs, missing = read_runs(campaign, folder, trials)
    # Not installed here, but trained or tried elsewhere, is not left out.
    tried = {run.trial.contestant for run in runs}
    tried |= {entry.trial.contestant for entry in missing if entry.tried}
    absent = [entry for entry in absent_contestants(campaign) if entry.contestant not in tried]
    left_out = {entry.contestant for entry in absent}
    missing = [entry for entry in missing if entry.trial.contestant not in left_out]
    names = [*campaign.further_metrics, *further_metrics]
    metrics = metrics_with(names, [run.result for run in runs])
    targets = targets_of(campaign, runs)
    reached = {name: at for target in targets.values() for name, at in target.reached.items()}
    summary = summarise(runs, metrics, reached)
    return CampaignResults(
        folder=folder,
        campaign=campaign,
        trials=trials,
        runs=runs,
        missing=missing,
        absent=absent,
        metrics=metrics,
        summary=summary,
        statistics=statistics_table(summary, metrics),
        targets=targets,
    )


def write_tables(results: CampaignResults) -> None:
    """Write summary.csv, summary.parquet, statistics.csv and provenance/launches.json."""
    root = results.folder.root
    summary = without_infinities(results.summary)
    write_table(summary, root / "summary.csv")
    write_parquet(summary, root / "summary.parquet")
    write_table(results.statistics, root / "statistics.csv")
    launches = {name: launch.model_dump(mode="json") for name, launch in results.launches().items()}
    write_text_atomically(results.folder.launches, json.dumps(launches, indent=2) + "\n")
