"""The layout of a campaign's folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from hpc_lpm.campaign.config import Campaign, read_campaign
from hpc_lpm.campaign.trials import Trial, file_name
from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile


class Hashes(VersionedFile):
    """`hashes.json`: the hash of what trials, plans, profiles and tunings are made from, by name.

    It tells which of the files in a campaign's folder belong to the campaign as it is now.
    """

    kind: ClassVar[str] = "record of hashes"

    runs: dict[str, str] = Field(default_factory=dict)
    plans: dict[str, str] = Field(default_factory=dict)
    profiles: dict[str, str] = Field(default_factory=dict)
    tuned: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class CampaignFolder:
    """The folder `results/<campaign name>` and the paths of everything in it.

    Runs, plans and profiles have names that end with their hash. Without `hashes` the names are
    those that earlier releases gave, which knew no hashes.
    """

    root: Path
    hashes: Hashes = field(default_factory=Hashes)

    @classmethod
    def at(cls, root: Path) -> "CampaignFolder":
        """Open the folder of a campaign as it was started last.

        Raises:
            InputError: if its record of hashes is damaged.
        """
        plain = cls(root)
        return cls(root, Hashes.read(plain.hashes_file)) if plain.hashes_file.exists() else plain

    @property
    def campaign(self) -> Path:
        """The campaign as it was resolved when it started."""
        return self.root / "provenance" / "campaign.json"

    @property
    def hashes_file(self) -> Path:
        """What tells the runs of the campaign from those of other settings."""
        return self.root / "provenance" / "hashes.json"

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
        """The rules that the campaign was started with."""
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

    def run_name(self, trial: Trial | str) -> str:
        """Return the name of a trial's folder: that of the trial and its hash."""
        return _with_hash(trial if isinstance(trial, str) else trial.name, self.hashes.runs)

    def run(self, trial: Trial | str) -> Path:
        """Folder of one trial."""
        return self.root / "runs" / self.run_name(trial)

    def settings(self, trial: Trial | str) -> Path:
        """The settings that a trial is trained with."""
        return self.run(trial) / "settings.json"

    def profile(self, model: str, dataset: str, micro_batch: int, *form: str) -> Path:
        """Profile of a model on a data set; `form` tells what else is not usual about it."""
        name = file_name(model, dataset, f"microbatch{micro_batch}", *form)
        return self.root / "profiles" / f"{_with_hash(name, self.hashes.profiles)}.json"

    def plan(self, trial: Trial) -> Path:
        """Plan of a trial; trials that differ in seed and repeat alone share it."""
        name = plan_name(trial)
        return self.root / "plans" / f"{_with_hash(name, self.hashes.plans)}.json"

    def tuned(self, trial: Trial) -> Path:
        """The tuning of a trial's contestant; trials that differ in seed and repeat share it."""
        return self.root / "tuned" / f"{_with_hash(tuned_name(trial), self.hashes.tuned)}.json"

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


def plan_name(trial: Trial) -> str:
    """Return the name of a trial's plan, without its hash."""
    parts = (f"k{trial.stages}", trial.planner or "", trial.contestant)
    return file_name(trial.model, trial.dataset, *parts)


def tuned_name(trial: Trial) -> str:
    """Return the name of the tuning of a trial's contestant, without its hash."""
    planner = [trial.planner] if trial.planner else []
    parts = (f"k{trial.ranks}", *planner, trial.contestant)
    return file_name(trial.model, trial.dataset, *parts)


def _with_hash(name: str, hashes: Mapping[str, str]) -> str:
    return f"{name}-{hashes[name]}" if name in hashes else name
