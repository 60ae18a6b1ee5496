"""The steps of a campaign: its profiles, plans and trials, with the command of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_lpm.campaign.absent import absent_contestants, without_absent
from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.contestants import (
    Contestant,
    contestant_cut_only_at,
    contestant_cuts,
    contestant_settings,
)
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.resources import AskedResources, Request, asked_resources, request_of
from hpc_lpm.campaign.trials import Trial, trials_of
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.planning.options import planned_optimizer

RUN_FILES = ("result.json", "trace.json", "launch.json")
"""The files that a finished trial has written.

Its folder also holds `identity.json`, `settings.json`, `train.log` and the files from which an
interrupted trial is resumed, which Snakemake must not remove before it starts the trial again:
`metrics.jsonl`, `checkpoint/` and `attempts.json`.
"""

WEIGHTS = "weights.safetensors"
"""The file of a run's weights, where the campaign keeps them."""


@dataclass(frozen=True)
class Step:
    """One command of the campaign: the arguments of `hpc-lpm`, its files and number of ranks."""

    arguments: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    ranks: int


class Steps:
    """All steps of a campaign whose results go to `folder`.

    Paths are relative to the directory in which the campaign runs. Contestants that are not
    installed have no steps; `absent` lists them, and `all_trials` has theirs among the others.
    """

    def __init__(self, campaign: Campaign, folder: CampaignFolder) -> None:
        self.campaign = campaign
        self.folder = folder
        self.absent = absent_contestants(campaign)
        self.run_files = (*RUN_FILES, *([WEIGHTS] if "weights" in campaign.keep else []))
        self.all_trials = trials_of(campaign)
        self.trials = {trial.name: trial for trial in without_absent(campaign, self.all_trials)}
        self._settings = {
            trial.name: settings_of(campaign, folder, trial) for trial in self.all_trials
        }
        self.profiles: dict[str, Step] = {}
        self.plans: dict[str, Step] = {}
        self.runs: dict[str, Step] = {}
        for trial in self.trials.values():
            if trial.planner:
                profile, plan = self.profile_path(trial), folder.plan(trial)
                self.profiles.setdefault(profile.stem, self._profile(trial, profile))
                self.plans.setdefault(plan.stem, self._plan(trial, profile, plan))
        for trial in self.trials.values():
            self.runs[trial.name] = self._run(trial)

    def settings(self, name: str) -> TrainSettings:
        """Return the settings of a trial, which go into its settings file."""
        return self._settings[name]

    def waits_for(self, name: str) -> list[str]:
        """Return the profile and plan that a trial waits for.

        A finished trial waits for none that is not there, such as the first profile of a campaign
        that has grown: nothing is to be trained again for it.
        """
        finished = all((self.folder.run(name) / file).exists() for file in self.run_files)
        return [path for path in self.runs[name].inputs if not finished or Path(path).exists()]

    def request(self, name: str) -> Request:
        """Return what the job of a trial requests of a cluster.

        Raises:
            FileNotFoundError: while the plan or profile that determines it does not exist.
        """
        trial = self.trials[name]
        plan = self.folder.plan(trial) if trial.planner else None
        return request_of(
            self.settings(name),
            self.campaign.resources,
            self._profile_of(trial),
            plan,
            played=trial.played,
        )

    def asked_resources(self, name: str) -> AskedResources:
        """Return what the job of a trial is going to request, as far as it is known by now."""
        trial = self.trials[name]
        return asked_resources(
            self.campaign.resources,
            profiled=self._profile_of(trial) is not None,
            planned=trial.planner is not None,
        )

    def profile_path(self, trial: Trial) -> Path:
        """Return the path of the profile from which a trial's plan is made."""
        return self.folder.profile(*self._profile_key(trial, self.profile_ranks(trial)))

    def profile_name(self, trial: Trial) -> str:
        """Return the name of that profile, without its hash."""
        ranks = self.profile_ranks(trial)
        return CampaignFolder(Path()).profile(*self._profile_key(trial, ranks)).stem

    def profile_ranks(self, trial: Trial) -> int:
        """Return the number of ranks that measure it: those that train, since they have the link.

        One process that plays the stages of several devices is to have the cuts of those devices,
        where the campaign starts them too.
        """
        started = {other.processes for other in self.all_trials if other.planner}
        return trial.ranks if trial.ranks in started else trial.processes

    def profile_arguments(self, trial: Trial) -> tuple[str, ...]:
        """Return the arguments of `hpc-lpm` that measure it, but for where it is written."""
        settings = self.settings(trial.name)
        arguments = ["profile", trial.model, "--dataset", trial.dataset]
        arguments += ["--micro-batch", str(trial.micro_batch)]
        arguments += ["--data-dir", str(settings.data_dir)] if settings.data_dir else []
        arguments += ["--loss", settings.loss] if settings.loss else []
        arguments += ["--precision", settings.precision]
        arguments += ["--memory-format", settings.memory_format]
        return tuple(arguments)

    def plan_request(self, trial: Trial) -> dict[str, object]:
        """Return the options of `hpc-lpm plan` by which a trial's plan is asked for."""
        settings = self.settings(trial.name)
        contestant = _contestant_of(self.campaign, trial)
        cuts = contestant_cuts(self.campaign, contestant)
        only_at = contestant_cut_only_at(self.campaign, contestant)
        return {
            "stages": trial.stages,
            **({"cuts": ",".join(map(str, cuts))} if cuts else {"planner": trial.planner}),
            **({"cut_only_at": ",".join(only_at)} if only_at else {}),
            "micro_batches": settings.micro_batches,
            **strategy_named(trial.strategy).plan_options(settings),
            "optimizer": planned_optimizer(settings.optimizer),
        }

    def _profile_key(self, trial: Trial, ranks: int) -> tuple[Any, ...]:
        settings = self.settings(trial.name)
        form = [settings.precision, settings.memory_format]
        usual = [self.campaign.precision, self.campaign.memory_format]
        # On as many ranks as train, because the link between them is measured too.
        apart = [f"k{ranks}"] if ranks != self.campaign.stages else []
        unusual = [*(form if form != usual else []), *apart]
        return (trial.model, trial.dataset, trial.micro_batch, *unusual)

    def _profile_of(self, trial: Trial) -> Path | None:
        """Return a profile of a trial's model, None if the campaign makes none."""
        ranks = dict.fromkeys(
            [
                self.profile_ranks(trial),
                self.campaign.stages,
                *map(self.profile_ranks, self.trials.values()),
            ]
        )
        paths = [self.folder.profile(*self._profile_key(trial, count)) for count in ranks]
        return next((path for path in paths if path.stem in self.profiles), None)

    def _profile(self, trial: Trial, path: Path) -> Step:
        arguments = (*self.profile_arguments(trial), "--out", str(path))
        return Step(arguments, (), str(path), self.profile_ranks(trial))

    def _plan(self, trial: Trial, profile: Path, path: Path) -> Step:
        arguments = ["plan", str(profile)]
        for name, value in self.plan_request(trial).items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                arguments += [f"--{option}" if value else f"--no-{option}"]
            else:
                arguments += [f"--{option}", str(value)]
        return Step((*arguments, "--out", str(path)), (str(profile),), str(path), 1)

    def _run(self, trial: Trial) -> Step:
        plan = (str(self.folder.plan(trial)),) if trial.planner else ()
        profile = self._profile_of(trial)
        inputs = (*plan, *([str(profile)] if profile else []))
        output = str(self.folder.run(trial))
        # An earlier attempt may have left a checkpoint.
        arguments = ("train", "--settings", str(self.folder.settings(trial)), "--resume")
        return Step((*arguments, "--out", output), inputs, output, trial.processes)


def settings_of(campaign: Campaign, folder: CampaignFolder, trial: Trial) -> TrainSettings:
    """Return the settings of a trial of a campaign, whether or not it can be trained here."""
    return contestant_settings(
        campaign,
        _contestant_of(campaign, trial),
        model=trial.model,
        dataset=trial.dataset,
        seed=trial.seed,
        plan=str(folder.plan(trial)) if trial.planner else None,
        length=trial.length,
    )


def _contestant_of(campaign: Campaign, trial: Trial) -> Contestant:
    return next(c for c in campaign.contestants if c.label == trial.contestant)
