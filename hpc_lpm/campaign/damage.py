"""Finds the files of a campaign that are there but of no use, so that they are made again."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hpc_lpm.campaign.launch_records import Launch
from hpc_lpm.campaign.runs import LAUNCH, read_run, why_left_out
from hpc_lpm.campaign.steps import Step, Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.campaign.tuning.tuned import Tuned
from hpc_lpm.documents import parse_json
from hpc_lpm.engine.checkpoint.store import FOLDER, Checkpoint
from hpc_lpm.engine.result import RESULT
from hpc_lpm.errors import InputError
from hpc_lpm.files import read_text, write_text_atomically
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import Profile

TRACE = "trace.json"


@dataclass(frozen=True)
class Damage:
    """What is wrong with files of a campaign: by the trial's name, and by the path of other steps.

    `record` is a file that says so. It is newer than all that is damaged.
    """

    record: Path
    trials: dict[str, str]
    files: dict[str, str]

    def of_trial(self, trial: Trial) -> list[str]:
        """Return the record if the trial is to be trained again, to be an input of it."""
        return [str(self.record)] if trial.name in self.trials else []

    def of_file(self, path: str) -> list[str]:
        """Return the record if a profile or plan is to be made again, to be an input of it."""
        return [str(self.record)] if path in self.files else []


def find_damage(steps: Steps, *, look: bool = True) -> Damage:
    """Find what is damaged in a campaign's folder, and record it there; or take all as it is."""
    record = steps.folder.root / ".damage.json"
    if not look:
        return Damage(record, {}, {})
    damage = Damage(record, damaged_trials(steps), damaged_steps(steps))
    if damage.trials or damage.files:
        # The time makes its content new, which Snakemake looks at too.
        found = {"found": datetime.now(UTC).isoformat(), **damage.trials, **damage.files}
        write_text_atomically(record, json.dumps(found, indent=2) + "\n")
    return damage


def damaged_trials(steps: Steps) -> dict[str, str]:
    """Return why the files of a trial are no good, by its name.

    They are truncated, empty or of another kind, or hold another run than the campaign asks for, or
    lack the checkpoint that is to be kept.
    """
    found: dict[str, str] = {}
    kept = "checkpoints" in steps.campaign.keep
    for name, trial in steps.trials.items():
        folder = steps.folder.run(trial)
        try:
            if (folder / RESULT).exists() and not why_left_out(folder, trial):
                if steps.tuning(trial) and steps.choice(trial) is None:
                    raise InputError("the tuning that has chosen its settings is not there")
                read_run(folder, trial, steps.settings(name))
            if (folder / LAUNCH).exists():
                Launch.read(folder / LAUNCH)
            if (folder / TRACE).exists():
                _read_trace(folder / TRACE)
            if kept and (folder / RESULT).exists() and not Checkpoint.newest(folder / FOLDER):
                raise InputError(f"the checkpoint of {folder / RESULT} was not kept")
        except InputError as error:
            found[name] = str(error)
    return found


def damaged_steps(steps: Steps) -> dict[str, str]:
    """Return why profiles, plans and tunings are no good, by their paths."""
    found: dict[str, str] = {}
    kinds: list[tuple[dict[str, Step], type[Profile] | type[Plan] | type[Tuned]]]
    kinds = [(steps.profiles, Profile), (steps.plans, Plan), (steps.tunings, Tuned)]
    for group, kind in kinds:
        for step in group.values():
            try:
                if Path(step.output).exists():
                    kind.read(Path(step.output))
            except InputError as error:
                found[step.output] = str(error)
    for trial in steps.trials.values():
        plan, tuned = steps.folder.plan(trial), steps.folder.tuned(trial)
        if steps.tuning(trial) and trial.planner and tuned.exists():
            try:
                Plan.read(plan)
            except InputError as error:
                found[str(tuned)] = str(error)
    return found


def _read_trace(path: Path) -> None:
    try:
        parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise InputError(f"trace {path} is not JSON ({error}): make it again.") from None
