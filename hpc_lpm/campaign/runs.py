"""The finished runs of a campaign, and the trials that are missing."""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.entrants import Entrant
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identity import result_settings
from hpc_lpm.campaign.launch_records import Launch, read_attempts
from hpc_lpm.campaign.steps import settings_of
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.engine.result import RESULT, RunResult
from hpc_lpm.engine.settings import TrainSettings, checked_settings, settings_fields
from hpc_lpm.errors import InputError
from hpc_lpm.files import read_text

LAUNCH = "launch.json"
"""The record of the launch of a run."""

OURS = "hpc-lpm: "
"""Begins every sentence in which a command of the toolkit says what was wrong."""


@dataclass(frozen=True)
class Run:
    """A finished trial.

    `calls` names the calls of Snakemake in which it was trained; it is empty if they are unknown.
    """

    trial: Trial
    folder: Path
    result: RunResult
    calls: str = ""

    @property
    def entrant(self) -> Entrant:
        """What the trial is one run of."""
        return Entrant.of(self.trial)


@dataclass(frozen=True)
class MissingTrial:
    """A trial without a valid result, why, and whether there was an attempt at it.

    `refused` tells that there is a result, but a damaged one or that of another run.
    """

    trial: Trial
    reason: str
    tried: bool
    refused: bool = False


def read_runs(
    campaign: Campaign, folder: CampaignFolder, trials: list[Trial]
) -> tuple[list[Run], list[MissingTrial]]:
    """Read the results of `trials`, in their order, and name those that are missing.

    A result that is damaged, or was not trained with the settings of the campaign, is missing, and
    so is one of fewer devices than were asked for.
    """
    runs: list[Run] = []
    missing: list[MissingTrial] = []
    for trial in trials:
        path = folder.run(trial)
        if not (path / RESULT).exists():
            tried = bool(read_attempts(path / "attempts.json"))
            missing.append(MissingTrial(trial, _why_missing(path), tried))
            continue
        if why := why_left_out(path, trial):
            missing.append(MissingTrial(trial, why, tried=True))
            continue
        try:
            runs.append(read_run(path, trial, settings_of(campaign, folder, trial)))
        except InputError as error:
            missing.append(MissingTrial(trial, str(error).rstrip("."), tried=True, refused=True))
    return runs, missing


def read_run(folder: Path, trial: Trial, settings: TrainSettings) -> Run:
    """Read a finished trial, which must have been trained with `settings`.

    Raises:
        InputError: if a file is damaged, or the result is that of another run.
    """
    result = RunResult.read(folder / RESULT)
    found, asked = _recorded_settings(result, folder), result_settings(settings)
    settled = {
        ".".join(each.path) for each in settings_fields(settings.strategy) if each.option.settled
    }
    for name, value in asked.items():
        if name not in settled and found.get(name) != value:
            raise _another_run(folder, name, found.get(name), value)
    if (result.ranks, result.planner) != (trial.ranks, trial.planner):
        raise _another_run(
            folder,
            "ranks and planner",
            [result.ranks, result.planner],
            [trial.ranks, trial.planner],
        )
    return Run(trial, folder, result, _calls_of(result, folder))


def why_left_out(folder: Path, trial: Trial) -> str | None:
    """Return why a finished run counts for nothing although nothing is wrong with it, else None.

    One that was planned again, since a device was gone, is no run of as many devices as were asked
    for: neither its speed nor its lags are comparable.
    """
    try:
        launch = Launch.read(folder / LAUNCH)
    except InputError:
        return None
    if launch.planned_for is None:
        return None
    first = next(each for each in launch.attempts if each.planned_for is not None)
    return (
        f"it has lost a device and was planned again for {launch.planned_for} of "
        f"{trial.processes} ranks, on {first.started:%Y-%m-%d}: its result and weights are "
        f"in {folder}, and count in no table; for a run of {trial.processes} ranks remove that "
        "folder and call snakemake"
    )


def _calls_of(result: RunResult, folder: Path) -> str:
    """Return the calls in which a run was trained, `+` between them."""
    try:
        attempts = Launch.read(folder / LAUNCH).attempts
    except InputError:  # run by hand
        return ""
    # Earlier attempts count only where training went on from what they had saved.
    counted = attempts if result.interruptions else attempts[-1:]
    calls = dict.fromkeys(attempt.call for attempt in counted)
    return "+".join(call for call in calls if call)


def _recorded_settings(result: RunResult, folder: Path) -> dict[str, object]:
    """Return the settings of a run; those that a later release has added are at their defaults."""
    try:
        return result_settings(checked_settings(**result.settings))
    except InputError as error:
        raise InputError(f"{folder / RESULT} has settings that are not accepted: {error}") from None


def _another_run(folder: Path, name: str, found: object, asked: object) -> InputError:
    return InputError(
        f"{folder / RESULT} was trained with {name} {found!r}, the campaign has {asked!r}: call "
        "snakemake, which trains it again."
    )


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
        lines = read_text(log, errors="replace").splitlines()
    except OSError:
        return None
    said = [line.removeprefix(OURS).rstrip(".") for line in lines if line.startswith(OURS)]
    return said[-1] if said else None
