"""Everything that is known about a campaign, read from its folder; and its tables."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.names import check_names
from hpc_lpm.campaign.runs import MissingTrial, Run, read_runs
from hpc_lpm.campaign.statistics import statistics_table
from hpc_lpm.campaign.summary import summarise, write_parquet, write_table
from hpc_lpm.campaign.trials import Trial, trials_of
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically


@dataclass(frozen=True)
class CampaignResults:
    """A campaign, its finished runs, and the tables computed from them."""

    folder: CampaignFolder
    campaign: Campaign
    trials: list[Trial]
    runs: list[Run]
    missing: list[MissingTrial]
    summary: pd.DataFrame
    statistics: pd.DataFrame

    def launches(self) -> dict[str, Launch]:
        """Return how each trial was launched, those that were not left out."""
        found: dict[str, Launch] = {}
        for trial in self.trials:
            try:
                found[trial.name] = Launch.read(self.folder.run(trial) / "launch.json")
            except InputError:  # run by hand, or not run
                continue
        return found


def load_results(root: Path) -> CampaignResults:
    """Read the folder of a campaign; trials that did not finish are listed as missing.

    Raises:
        InputError: if `root` is not the folder of a campaign.
    """
    folder = CampaignFolder(root)
    campaign = folder.read_campaign()
    check_names(campaign, str(folder.campaign))
    trials = trials_of(campaign)
    runs, missing = read_runs(folder, trials)
    summary = summarise(runs)
    return CampaignResults(
        folder, campaign, trials, runs, missing, summary, statistics_table(summary)
    )


def write_tables(results: CampaignResults) -> None:
    """Write summary.csv, summary.parquet, statistics.csv and provenance/launches.json."""
    root = results.folder.root
    write_table(results.summary, root / "summary.csv")
    write_parquet(results.summary, root / "summary.parquet")
    write_table(results.statistics, root / "statistics.csv")
    launches = {name: launch.model_dump(mode="json") for name, launch in results.launches().items()}
    write_text_atomically(results.folder.launches, json.dumps(launches, indent=2) + "\n")
