"""The steps of a campaign: its profiles, plans and trials, with the command of each."""

from dataclasses import dataclass
from pathlib import Path

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

Its folder also holds `settings.json`, `train.log` and the files from which an interrupted trial is
resumed, which Snakemake must not remove before it starts the trial again: `metrics.jsonl`,
`checkpoint/` and `attempts.json`.
"""


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
    installed have no steps; `absent` lists them.
    """

    def __init__(self, campaign: Campaign, folder: CampaignFolder) -> None:
        self.campaign = campaign
        self.folder = folder
        self.absent = absent_contestants(campaign)
        trials = without_absent(campaign, trials_of(campaign))
        self.trials = {trial.name: trial for trial in trials}
        self._settings = {name: self._settings_of(trial) for name, trial in self.trials.items()}
        self.profiles: dict[str, Step] = {}
        self.plans: dict[str, Step] = {}
        self.runs: dict[str, Step] = {}
        sharing: dict[Path, list[Trial]] = {}
        for trial in self.trials.values():
            if trial.planner:
                sharing.setdefault(self.profile_path(trial), []).append(trial)
        for profile, users in sharing.items():
            ranks = max(trial.ranks for trial in users)
            self.profiles[profile.stem] = self._profile(users[0], profile, ranks)
            for trial in users:
                plan = folder.plan(trial)
                self.plans.setdefault(plan.stem, self._plan(trial, profile, plan))
        for trial in self.trials.values():
            self.runs[trial.name] = self._run(trial)

    def settings(self, name: str) -> TrainSettings:
        """Return the settings of a trial, which go into its settings file."""
        return self._settings[name]

    def _settings_of(self, trial: Trial) -> TrainSettings:
        return contestant_settings(
            self.campaign,
            self._contestant_of(trial),
            model=trial.model,
            dataset=trial.dataset,
            seed=trial.seed,
            plan=str(self.folder.plan(trial)) if trial.planner else None,
        )

    def _contestant_of(self, trial: Trial) -> Contestant:
        return next(c for c in self.campaign.contestants if c.label == trial.contestant)

    def request(self, name: str) -> Request:
        """Return what the job of a trial requests of a cluster.

        Raises:
            FileNotFoundError: while the plan or profile that determines it does not exist.
        """
        trial = self.trials[name]
        plan = self.folder.plan(trial) if trial.planner else None
        return request_of(
            self.settings(name), self.campaign.resources, self._profile_of(trial), plan
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
        """Return the path of the profile of a trial's model, even if the campaign makes none."""
        settings = self.settings(trial.name)
        form = [settings.precision, settings.memory_format]
        usual = [self.campaign.precision, self.campaign.memory_format]
        return self.folder.profile(
            trial.model, trial.dataset, trial.micro_batch, *(form if form != usual else [])
        )

    def _profile_of(self, trial: Trial) -> Path | None:
        """Return the profile of a trial's model, None if the campaign makes none."""
        path = self.profile_path(trial)
        return path if path.stem in self.profiles else None

    def _profile(self, trial: Trial, path: Path, ranks: int) -> Step:
        settings = self.settings(trial.name)
        arguments = ["profile", trial.model, "--dataset", trial.dataset]
        arguments += ["--micro-batch", str(trial.micro_batch)]
        arguments += ["--data-dir", str(settings.data_dir)] if settings.data_dir else []
        arguments += ["--loss", settings.loss] if settings.loss else []
        arguments += ["--precision", settings.precision]
        arguments += ["--memory-format", settings.memory_format]
        # On as many ranks as train, because the link between them is measured too.
        return Step((*arguments, "--out", str(path)), (), str(path), ranks)

    def _plan(self, trial: Trial, profile: Path, path: Path) -> Step:
        settings = self.settings(trial.name)
        contestant = self._contestant_of(trial)
        cuts = contestant_cuts(self.campaign, contestant)
        only_at = contestant_cut_only_at(self.campaign, contestant)
        asked = {
            **({"cuts": ",".join(map(str, cuts))} if cuts else {"planner": trial.planner}),
            **({"cut_only_at": ",".join(only_at)} if only_at else {}),
            "micro_batches": settings.micro_batches,
            **strategy_named(trial.strategy).plan_options(settings),
            "optimizer": planned_optimizer(settings.optimizer),
        }
        arguments = ["plan", str(profile), "--stages", str(trial.ranks)]
        for name, value in asked.items():
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
        return Step((*arguments, "--out", output), inputs, output, trial.ranks)
