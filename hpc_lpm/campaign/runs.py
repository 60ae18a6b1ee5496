"""The runs of a campaign that are there, and the trials that are missing."""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import read_attempts
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.engine.result import RunResult
from hpc_lpm.errors import InputError

_OURS = "hpc-lpm: "
"""Begins the sentence by which a command says what was wrong."""


@dataclass(frozen=True)
class Run:
    """A finished trial."""

    trial: Trial
    folder: Path
    result: RunResult

    @property
    def contestant(self) -> "Contestant":
        """What the trial is one run of."""
        trial = self.trial
        return Contestant(trial.model, trial.dataset, trial.strategy, trial.planner, trial.label)


@dataclass(frozen=True)
class Contestant:
    """What is compared: the runs that differ in seed and repeat alone."""

    model: str
    dataset: str
    strategy: str
    planner: str | None
    label: str

    @property
    def race(self) -> tuple[str, str]:
        """Model and data set: contestants of the same race are compared with each other."""
        return (self.model, self.dataset)


@dataclass(frozen=True)
class MissingTrial:
    """A trial without a valid result, and why."""

    trial: Trial
    reason: str


def read_runs(folder: CampaignFolder, trials: list[Trial]) -> tuple[list[Run], list[MissingTrial]]:
    """Read the results of `trials`, in their order, and name those that are missing."""
    runs: list[Run] = []
    missing: list[MissingTrial] = []
    for trial in trials:
        path = folder.run(trial)
        if not (path / "result.json").exists():
            missing.append(MissingTrial(trial, _why_missing(path)))
            continue
        try:
            runs.append(Run(trial, path, RunResult.read(path / "result.json")))
        except InputError as error:
            missing.append(MissingTrial(trial, str(error)))
    return runs, missing


def contestants_of(runs: list[Run]) -> list[Contestant]:
    """Return the contestants in the order in which they first ran."""
    return list(dict.fromkeys(run.contestant for run in runs))


def _why_missing(path: Path) -> str:
    attempts = read_attempts(path / "attempts.json")
    if not attempts:
        return "it was not run"
    log, code = path / "train.log", attempts[-1].exit_code
    ended = "it was lost" if code is None else f"it ended with exit code {code}"
    tried = f" after {len(attempts)} attempts" if len(attempts) > 1 else ""
    said = _last_complaint(log)
    return f"{ended}{tried}{f' ({said})' if said else ''}, see {log}"


def _last_complaint(log: Path) -> str | None:
    """Return the last sentence by which the toolkit itself said what was wrong."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    said = [line.removeprefix(_OURS).rstrip(".") for line in lines if line.startswith(_OURS)]
    return said[-1] if said else None
