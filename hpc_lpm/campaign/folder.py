"""The layout of a campaign's folder."""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.config import Campaign, read_campaign
from hpc_lpm.campaign.trials import Trial, file_name
from hpc_lpm.errors import InputError


@dataclass(frozen=True)
class CampaignFolder:
    """The folder `results/<campaign name>` and the paths of everything in it."""

    root: Path

    @property
    def campaign(self) -> Path:
        """The campaign as it was resolved when it started."""
        return self.root / "provenance" / "campaign.json"

    @property
    def environment(self) -> Path:
        """What the campaign ran on."""
        return self.root / "provenance" / "environment.json"

    @property
    def launches(self) -> Path:
        """The command, start, end and exit code of every trial."""
        return self.root / "provenance" / "launches.json"

    @property
    def provenance(self) -> Path:
        """What the campaign ran from, on what, and with what outcome, in one document."""
        return self.root / "provenance" / "provenance.json"

    @property
    def workflow(self) -> Path:
        """The Snakefile that the campaign was started with."""
        return self.root / "provenance" / "Snakefile"

    @property
    def crate(self) -> Path:
        """The metadata that make the folder an RO-Crate."""
        return self.root / "ro-crate-metadata.json"

    @property
    def figures(self) -> Path:
        """Folder of the figures: SVG files, each with its data as CSV."""
        return self.root / "figures"

    @property
    def report(self) -> Path:
        """The report that opens from disk."""
        return self.root / "report.html"

    def run(self, trial: Trial | str) -> Path:
        """Folder of one trial."""
        return self.root / "runs" / (trial if isinstance(trial, str) else trial.name)

    def settings(self, trial: Trial | str) -> Path:
        """The settings that a trial is trained with."""
        return self.run(trial) / "settings.json"

    def profile(self, model: str, dataset: str, micro_batch: int, *form: str) -> Path:
        """Profile of a model on a data set, in a precision and memory format if they are named."""
        name = file_name(model, dataset, f"microbatch{micro_batch}", *form)
        return self.root / "profiles" / f"{name}.json"

    def plan(self, trial: Trial) -> Path:
        """Plan of a trial; trials that differ in seed and repeat alone share it."""
        name = file_name(
            trial.model, trial.dataset, f"k{trial.ranks}", trial.planner or "", trial.contestant
        )
        return self.root / "plans" / f"{name}.json"

    def read_campaign(self) -> Campaign:
        """Return the campaign of this folder.

        Raises:
            InputError: if this is not the folder of a campaign.
        """
        if not self.campaign.exists():
            raise InputError(
                f"{self.root} is not the folder of a campaign (provenance/campaign.json is not "
                "there): name a folder such as results/quick, which snakemake makes."
            )
        return read_campaign(self.campaign)
