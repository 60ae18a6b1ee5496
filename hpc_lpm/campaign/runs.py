"""The finished runs of a campaign, and the trials that are missing."""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import read_attempts
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.engine.result import RunResult
from hpc_lpm.errors import InputError

_OURS = "hpc-lpm: "
"""Begins every sentence in which a command of the toolkit says what was wrong."""


@dataclass(frozen=True)
class Run:
    """A finished trial."""

    trial: Trial
    folder: Path
    result: RunResult

    @property
    def entrant(self) -> Entrant:
        """What the trial is one run of."""
        return Entrant.of(self.trial)


@dataclass(frozen=True)
class MissingTrial:
    """A trial without a valid result, why, and whether there was an attempt at it."""

    trial: Trial
    reason: str
    tried: bool


def read_runs(folder: CampaignFolder, trials: list[Trial]) -> tuple[list[Run], list[MissingTrial]]:
    """Read the results of `trials`, in their order, and name those that are missing."""
    runs: list[Run] = []
    missing: list[MissingTrial] = []
    for trial in trials:
        path = folder.run(trial)
        if not (path / "result.json").exists():
            tried = bool(read_attempts(path / "attempts.json"))
            missing.append(MissingTrial(trial, _why_missing(path), tried))
            continue
        try:
            runs.append(Run(trial, path, RunResult.read(path / "result.json")))
        except InputError as error:
            missing.append(MissingTrial(trial, str(error), tried=True))
    return runs, missing


def entrants_of(runs: list[Run]) -> list[Entrant]:
    """Return the entrants in the order in which they first ran."""
    return list(dict.fromkeys(run.entrant for run in runs))


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
    """Return the last sentence in which the toolkit itself says what was wrong."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    said = [line.removeprefix(_OURS).rstrip(".") for line in lines if line.startswith(_OURS)]
    return said[-1] if said else None
