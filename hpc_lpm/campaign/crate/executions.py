"""Lists every execution of a campaign: profiles, plans, and each attempt at each trial."""

from dataclasses import dataclass, field
from datetime import datetime

from hpc_lpm.campaign.crate.payload import run_files
from hpc_lpm.campaign.launch_records import Attempt
from hpc_lpm.campaign.provenance import CampaignProvenance, StepProvenance, TrialProvenance
from hpc_lpm.campaign.results import CampaignResults
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.cluster.slurm import SlurmJob

CAMPAIGN_FILE = "provenance/campaign.json"


@dataclass(frozen=True)
class Execution:
    """A single execution of a step or a trial.

    `objects` and `results` are the files of the crate that it read and wrote, `parameters` and
    `outcomes` single values that went in and came out, and `environment` the variables that tell
    where it ran. `error` is None if it ended well, `exit_code` if none is known.
    """

    identifier: str
    name: str
    description: str
    started: datetime
    ended: datetime | None
    exit_code: int | None
    error: str | None
    objects: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    parameters: dict[str, str | int] = field(default_factory=dict)
    outcomes: dict[str, str | int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()


def executions_of(results: CampaignResults, provenance: CampaignProvenance) -> list[Execution]:
    """Return all executions: first the steps, then the trials in their order."""
    found = [_step(name, step) for name, step in provenance.steps.items()]
    steps = Steps(results.campaign, results.folder)
    for trial in results.trials:
        found += _attempts(steps, trial, provenance.trials[trial.name])
    return found


def _step(name: str, step: StepProvenance) -> Execution:
    verb = "Measure" if name.startswith("profiles/") else "Compute"
    return Execution(
        identifier=f"#{name}",
        name=f"{verb} {name}",
        description=f"{verb} {name}.json from the campaign file",
        started=step.started,
        ended=step.ended,
        exit_code=step.exit_code,
        error=_error(step.exit_code),
        objects=(CAMPAIGN_FILE,),
        results=(f"{name}.json", f"{name}.launch.json"),
        environment=_environment(step.slurm.job_id if step.slurm else None, step.slurm),
        nodes=step.nodes,
    )


def _attempts(steps: Steps, trial: Trial, found: TrialProvenance) -> list[Execution]:
    executions = []
    for number, attempt in enumerate(found.attempts, start=1):
        last = number == len(found.attempts)
        executions.append(_attempt(steps, trial, found, attempt, 0 if last else number))
    return executions


def _attempt(
    steps: Steps, trial: Trial, found: TrialProvenance, attempt: Attempt, number: int
) -> Execution:
    """Return an attempt; the last one has `number` 0 and owns the files of the run."""
    folder = steps.folder
    outcomes: dict[str, str | int] = {}
    if found.weights_sha256 and not number:
        outcomes["SHA-256 of the weights"] = found.weights_sha256
    files = run_files(folder.root, folder.run_name(trial)) if not number else []
    # Only of the last attempt is the whole job known.
    slurm = None if number else found.slurm
    return Execution(
        identifier=f"#train/{trial.name}" + (f"/attempt{number}" if number else ""),
        name=f"Train {trial.name}" + (f", attempt {number}" if number else ""),
        description=f"Train {trial.model} on {trial.dataset} with {trial.label} on "
        f"{trial.ranks} {'stages in one process' if trial.played else 'ranks'}, "
        f"seed {trial.seed}, repeat {trial.repeat}",
        started=attempt.started,
        ended=attempt.ended,
        exit_code=attempt.exit_code,
        error=_error(attempt.exit_code),
        objects=(CAMPAIGN_FILE, *_inputs(steps, trial)),
        results=tuple(file.path for file in files),
        parameters={"ranks": trial.ranks, "seed": trial.seed, "repeat": trial.repeat},
        outcomes=outcomes,
        environment=_environment(attempt.job_id, slurm),
        nodes=attempt.nodes,
    )


def _inputs(steps: Steps, trial: Trial) -> list[str]:
    folder = steps.folder
    paths = [steps.profile_path(trial), folder.plan(trial)] if trial.planner else []
    paths += [folder.tuned(trial)] if steps.tuning(trial) else []
    return [path.relative_to(folder.root).as_posix() for path in paths]


def _error(exit_code: int | None) -> str | None:
    if exit_code is None:
        return "it ended without a record, as when its node fails"
    return f"exit code {exit_code}" if exit_code else None


def _environment(job_id: str | None, slurm: SlurmJob | None) -> dict[str, str]:
    found = {"SLURM_JOB_ID": job_id} if job_id else {}
    if slurm and slurm.node_list:
        found["SLURM_JOB_NODELIST"] = slurm.node_list
    if slurm and slurm.partition:
        found["SLURM_JOB_PARTITION"] = slurm.partition
    return found
