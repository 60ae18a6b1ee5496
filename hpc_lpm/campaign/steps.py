"""The steps of a campaign: which profiles, plans and trials, and the command of each."""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.resources import Request, request_of
from hpc_lpm.campaign.trials import Trial, trials_of
from hpc_lpm.campaign.update_options import planned_optimizer, update_arguments

STRATEGIES_THAT_REPLAY = frozenset({"fbp"})
"""Strategies whose plan must count the replayed forwards; the others run each forward once."""

STRATEGIES_THAT_BLOCK = frozenset({"deepspeed-1f1b"})
"""Strategies that compute nothing during their transfers, whatever the link could do: they get the
plan that is best for that."""

RUN_FILES = ("result.json", "trace.json", "launch.json")
"""What makes a trial a finished one.

Beside them its folder holds `train.log` and what an interrupted trial goes on from, which Snakemake
must not remove before it starts again: `metrics.jsonl`, `checkpoint/` and `attempts.json`.
"""


@dataclass(frozen=True)
class Step:
    """One command of the campaign: `hpc-lpm` arguments, what it reads, writes and runs on."""

    arguments: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    ranks: int


class Steps:
    """All steps of a campaign whose results go to `folder`; paths are relative to where it runs."""

    def __init__(self, campaign: Campaign, folder: CampaignFolder) -> None:
        self.campaign = campaign
        self.folder = folder
        self.trials = {trial.name: trial for trial in trials_of(campaign)}
        self.profiles: dict[str, Step] = {}
        self.plans: dict[str, Step] = {}
        self.runs: dict[str, Step] = {}
        for trial in self.trials.values():
            if trial.planner:
                profile = self._profile_path(trial)
                self.profiles.setdefault(profile.stem, self._profile(trial, profile))
                plan = folder.plan(trial)
                self.plans.setdefault(plan.stem, self._plan(trial, profile, plan))
        for trial in self.trials.values():
            self.runs[trial.name] = self._run(trial)

    def request(self, name: str) -> Request:
        """Return what the job of a trial asks a cluster for.

        Raises:
            FileNotFoundError: while the plan or profile that tells it is not there.
        """
        trial = self.trials[name]
        plan = self.folder.plan(trial) if trial.planner else None
        return request_of(trial, self.campaign, self._profile_of(trial), plan)

    def _profile_path(self, trial: Trial) -> Path:
        return self.folder.profile(trial.model, trial.dataset, self.campaign.micro_batch)

    def _profile_of(self, trial: Trial) -> Path | None:
        """Return the profile of a trial's model, None if the campaign makes none."""
        path = self._profile_path(trial)
        return path if path.stem in self.profiles else None

    def _profile(self, trial: Trial, path: Path) -> Step:
        arguments = ["profile", trial.model, "--dataset", trial.dataset]
        arguments += ["--micro-batch", str(self.campaign.micro_batch), *self._data_dir()]
        arguments += self._format()
        # As many ranks as train: the link between them is measured too.
        return Step((*arguments, "--out", str(path)), (), str(path), trial.ranks)

    def _plan(self, trial: Trial, profile: Path, path: Path) -> Step:
        campaign = self.campaign
        replays = trial.strategy in STRATEGIES_THAT_REPLAY
        arguments = ["plan", str(profile), "--stages", str(trial.ranks)]
        arguments += ["--planner", str(trial.planner)]
        arguments += ["--micro-batches", str(campaign.micro_batches)]
        arguments += ["--weights", campaign.weights if replays else "live"]
        arguments += ["--lead", str(campaign.lead)]
        arguments += ["--no-overlap"] if trial.strategy in STRATEGIES_THAT_BLOCK else []
        arguments += ["--optimizer", planned_optimizer(campaign.optimizer)]
        return Step((*arguments, "--out", str(path)), (str(profile),), str(path), 1)

    def _run(self, trial: Trial) -> Step:
        campaign = self.campaign
        plan = (str(self.folder.plan(trial)),) if trial.planner else ()
        profile = self._profile_of(trial)
        inputs = (*plan, *([str(profile)] if profile else []))
        optimizer = campaign.optimizer
        arguments = ["train", "--model", trial.model, "--dataset", trial.dataset]
        arguments += ["--strategy", trial.strategy, *(["--plan", *plan] if plan else [])]
        arguments += ["--batch-size", str(campaign.batch_size)]
        arguments += ["--micro-batches", str(campaign.micro_batches)]
        if campaign.epochs is not None:
            arguments += ["--epochs", str(campaign.epochs)]
        else:
            arguments += ["--steps", str(campaign.steps)]
        arguments += ["--seed", str(trial.seed), "--optimizer", optimizer.name]
        arguments += ["--lr", str(optimizer.lr), "--momentum", str(optimizer.momentum)]
        arguments += ["--weight-decay", str(optimizer.weight_decay)]
        arguments += ["--lead", str(campaign.lead), "--weights", campaign.weights]
        if trial.strategy == "fbp":
            arguments += ["--prediction"] if campaign.prediction else []
            arguments += ["--synchronous-tail", str(campaign.synchronous_tail)]
        arguments += update_arguments(campaign, trial.strategy)
        arguments += self._format()
        # An earlier attempt may have left a checkpoint.
        arguments += ["--resume"]
        output = str(self.folder.run(trial))
        return Step((*arguments, *self._data_dir(), "--out", output), inputs, output, trial.ranks)

    def _format(self) -> list[str]:
        campaign = self.campaign
        return ["--precision", campaign.precision, "--memory-format", campaign.memory_format]

    def _data_dir(self) -> list[str]:
        return ["--data-dir", self.campaign.data_dir] if self.campaign.data_dir else []
