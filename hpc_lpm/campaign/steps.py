"""The steps of a campaign: its profiles, plans, tunings and trials, with the command of each."""

from collections.abc import Iterable
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
    contestant_tuning,
)
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.resources import (
    AskedResources,
    Request,
    asked_resources,
    request_of,
    tuning_request,
)
from hpc_lpm.campaign.sections import Tuning
from hpc_lpm.campaign.trials import Trial, trials_of
from hpc_lpm.campaign.tuning.candidates import Candidate, tried_micro_batches
from hpc_lpm.campaign.tuning.tuned import TriedCandidate, Tuned
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.errors import InputError
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
        self.tunings: dict[str, Step] = {}
        self.runs: dict[str, Step] = {}
        for trial in self.trials.values():
            profiles = self.profiles_of(trial)
            for size, path in profiles.items():
                self.profiles.setdefault(path.stem, self._profile(trial, size, path))
            if self.tuning(trial):  # which makes the plan too
                tuned = folder.tuned(trial)
                self.tunings.setdefault(tuned.stem, self._tuning(trial, profiles.values(), tuned))
            elif trial.planner:
                (profile,), plan = profiles.values(), folder.plan(trial)
                self.plans.setdefault(plan.stem, self._plan(trial, profile, plan))
        for trial in self.trials.values():
            self.runs[trial.name] = self._run(trial)

    def settings(self, name: str) -> TrainSettings:
        """Return the settings of a trial, which go into its settings file.

        They are those that a tuning has chosen once it has.
        """
        return self._settings[name]

    def contestant(self, trial: Trial) -> Contestant:
        """Return the contestant of a trial as the campaign has it."""
        return _contestant_of(self.campaign, trial)

    def tuning(self, trial: Trial) -> Tuning | None:
        """Return how the best settings of a trial are searched for, None if they are not."""
        return contestant_tuning(self.campaign, self.contestant(trial))

    def choice(self, trial: Trial) -> TriedCandidate | None:
        """Return what the tuning of a trial has chosen, None without one, or if it is to come."""
        return choice_of(self.campaign, self.folder, trial)

    def waits_for(self, name: str) -> list[str]:
        """Return the profile, plan and tuning that a trial waits for.

        A finished trial waits for none that is not there, such as the first profile of a campaign
        that has grown: nothing is to be trained again for it. Its tuning must be there, which
        tells what it was trained with.
        """
        finished = all((self.folder.run(name) / file).exists() for file in self.run_files)
        tuned = str(self.folder.tuned(self.trials[name]))
        return [
            path
            for path in self.runs[name].inputs
            if not finished or path == tuned or Path(path).exists()
        ]

    def request(self, name: str) -> Request:
        """Return what the job of a trial requests of a cluster.

        Raises:
            FileNotFoundError: while the plan or profile that determines it does not exist.
        """
        trial = self.trials[name]
        found = self._own_request(trial)
        if not self.campaign.share_launch:
            return found
        # Its ranks may have to train all others that can share them, some of which need more.
        group = (trial.model, trial.dataset, trial.processes)
        known: dict[tuple[str, int | None], Request] = {}
        minutes = 0
        for each in self.trials.values():
            if (each.model, each.dataset, each.processes) == group:
                kind = (each.label, each.length)  # seeds and repeats request the same
                if kind not in known:
                    known[kind] = self._known_request(each) or found
                minutes += known[kind].minutes
        return Request(max(one.rank_megabytes for one in known.values()), minutes)

    def _own_request(self, trial: Trial) -> Request:
        return request_of(
            self.settings(trial.name),
            self.campaign.resources,
            self._profile_of(trial),
            self.folder.plan(trial) if trial.planner else None,
            played=trial.played,
        )

    def _known_request(self, trial: Trial) -> Request | None:
        try:
            return self._own_request(trial)
        except FileNotFoundError:  # as long as its plan is to come
            return None

    def tuned_trial(self, name: str) -> Trial | None:
        """Return a trial of the contestant that a tuning is about, None if there is none."""
        trials = self.trials.values()
        return next((each for each in trials if self.folder.tuned(each).stem == name), None)

    def tuning_threads(self, name: str) -> int:
        """Return the threads of each rank of a tuning."""
        trial = self.tuned_trial(name)
        return self.settings(trial.name).threads if trial else 1

    def tuning_request(self, name: str) -> Request:
        """Return what the job of a tuning requests of a cluster."""
        trial, asked = self.tuned_trial(name), self.campaign.resources
        tuning = self.tuning(trial) if trial else None
        return tuning_request(tuning.budget_seconds if tuning else 0.0, asked)

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
        size = max(1, self.settings(trial.name).micro_batch_size // trial.replicas)
        return self.folder.profile(*self._profile_key(trial, size, self.profile_ranks(trial)))

    def profiles_of(self, trial: Trial) -> dict[int, Path]:
        """Return the profiles that a trial's plans may be made from, by samples of a micro-batch.

        There are several where a tuning is free to choose the micro-batches, and none for a trial
        without a plan.
        """
        if not trial.planner:
            return {}
        ranks = self.profile_ranks(trial)
        return {
            size: self.folder.profile(*self._profile_key(trial, size, ranks))
            for size in tried_micro_batches(self.campaign, self.contestant(trial))
        }

    def profile_name(self, trial: Trial, micro_batch: int) -> str:
        """Return the name of a profile, without its hash."""
        ranks = self.profile_ranks(trial)
        return CampaignFolder(Path()).profile(*self._profile_key(trial, micro_batch, ranks)).stem

    def profile_ranks(self, trial: Trial) -> int:
        """Return the number of ranks that measure it: those that train, since they have the link.

        One process that plays the stages of several devices is to have the cuts of those devices,
        where the campaign starts them too.
        """
        started = {other.processes for other in self.all_trials if other.planner}
        return trial.ranks if trial.ranks in started else trial.processes

    def profile_arguments(self, trial: Trial, micro_batch: int) -> tuple[str, ...]:
        """Return the arguments of `hpc-lpm` that measure it, but for where it is written."""
        settings = self.settings(trial.name)
        arguments = ["profile", trial.model, "--dataset", trial.dataset]
        arguments += ["--micro-batch", str(micro_batch)]
        arguments += ["--data-dir", str(settings.data_dir)] if settings.data_dir else []
        arguments += ["--loss", settings.loss] if settings.loss else []
        arguments += ["--precision", settings.precision]
        arguments += ["--memory-format", settings.memory_format]
        return tuple(arguments)

    def plan_request(
        self, trial: Trial, settings: TrainSettings | None = None
    ) -> dict[str, object]:
        """Return the options of `hpc-lpm plan` by which a trial's plan is asked for.

        `settings` are others than those of the trial, which a tuning tries.
        """
        settings = settings or self.settings(trial.name)
        contestant = self.contestant(trial)
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

    def _profile_key(self, trial: Trial, micro_batch: int, ranks: int) -> tuple[Any, ...]:
        settings = self.settings(trial.name)
        form = [settings.precision, settings.memory_format]
        usual = [self.campaign.precision, self.campaign.memory_format]
        # On as many ranks as train, because the link between them is measured too.
        apart = [f"k{ranks}"] if ranks != self.campaign.stages else []
        unusual = [*(form if form != usual else []), *apart]
        return (trial.model, trial.dataset, micro_batch, *unusual)

    def _profile_of(self, trial: Trial) -> Path | None:
        """Return a profile of a trial's model, None if the campaign makes none."""
        ranks = dict.fromkeys(
            [
                self.profile_ranks(trial),
                self.campaign.stages,
                *map(self.profile_ranks, self.trials.values()),
            ]
        )
        # Of the usual micro-batches: what a tuning chooses does not change what trials wait for.
        size = trial.micro_batch
        paths = [self.folder.profile(*self._profile_key(trial, size, count)) for count in ranks]
        return next((path for path in paths if path.stem in self.profiles), None)

    def _profile(self, trial: Trial, micro_batch: int, path: Path) -> Step:
        arguments = (*self.profile_arguments(trial, micro_batch), "--out", str(path))
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

    def _tuning(self, trial: Trial, profiles: Iterable[Path], path: Path) -> Step:
        arguments = ("campaign", "tune", str(self.folder.root), path.stem)
        return Step(arguments, tuple(map(str, profiles)), str(path), trial.processes)

    def _run(self, trial: Trial) -> Step:
        plan = (str(self.folder.plan(trial)),) if trial.planner else ()
        before = (str(self.folder.tuned(trial)),) if self.tuning(trial) else plan
        profile = self._profile_of(trial)
        inputs = (*before, *([str(profile)] if profile else []))
        output = str(self.folder.run(trial))
        # An earlier attempt may have left a checkpoint.
        arguments = ("train", "--settings", str(self.folder.settings(trial)), "--resume")
        return Step((*arguments, "--out", output), inputs, output, trial.processes)


def settings_of(campaign: Campaign, folder: CampaignFolder, trial: Trial) -> TrainSettings:
    """Return the settings of a trial of a campaign, whether or not it can be trained here.

    They are those that a tuning has chosen once it has.
    """
    contestant, choice = _contestant_of(campaign, trial), choice_of(campaign, folder, trial)
    if choice is not None:
        contestant = Candidate(choice.options, choice.style).of(contestant)
    return contestant_settings(
        campaign,
        contestant,
        model=trial.model,
        dataset=trial.dataset,
        seed=trial.seed,
        plan=str(folder.plan(trial)) if trial.planner else None,
        length=trial.length,
    )


def choice_of(campaign: Campaign, folder: CampaignFolder, trial: Trial) -> TriedCandidate | None:
    """Return what the tuning of a trial has chosen, None without one, or if it is to come.

    A damaged record counts as none: Snakemake is told to make it again.
    """
    if contestant_tuning(campaign, _contestant_of(campaign, trial)) is None:
        return None
    try:
        return Tuned.read(folder.tuned(trial)).choice
    except InputError:
        return None


def _contestant_of(campaign: Campaign, trial: Trial) -> Contestant:
    return next(c for c in campaign.contestants if c.label == trial.contestant)
