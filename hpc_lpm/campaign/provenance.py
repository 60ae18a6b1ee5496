"""`provenance.json`: what a campaign ran from, on what, and with what outcome, in one document."""

from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from hpc_lpm.campaign.environment import campaign_sha256, read_environment
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.launch_records import Attempt, Launch, read_attempts
from hpc_lpm.campaign.results import CampaignResults
from hpc_lpm.campaign.tuning.table import read_tunings
from hpc_lpm.campaign.tuning.tuned import Tuned
from hpc_lpm.cluster.machine import Machine
from hpc_lpm.cluster.slurm import SlurmJob
from hpc_lpm.errors import InputError
from hpc_lpm.files import VersionedFile


class TrialProvenance(BaseModel):
    """One trial, and the `run` of it: the name of its folder, which ends with its hash.

    `weights_sha256` is None if it did not finish, `slurm` if it ran outside a job.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str | None = None
    seed: int
    repeat: int
    ranks: int
    weights_sha256: str | None
    nodes: tuple[str, ...]
    slurm: SlurmJob | None
    attempts: tuple[Attempt, ...]


class StepProvenance(BaseModel):
    """A profile or a plan, as the launch record of its command tells."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    started: datetime
    ended: datetime
    exit_code: int
    nodes: tuple[str, ...]
    slurm: SlurmJob | None


class CampaignProvenance(VersionedFile):
    """The whole document.

    `tunings` tell what was tried of the contestants that were tuned, and what was chosen.
    `machines` are the nodes of all launches; `environment` is what was found when the campaign
    started, or None if its file is missing. `started` and `ended` are None if no time was recorded.
    """

    kind: ClassVar[str] = "provenance"

    campaign: str
    campaign_sha256: str
    seeds: tuple[int, ...]
    started: datetime | None
    ended: datetime | None
    job_ids: tuple[str, ...]
    machines: tuple[Machine, ...]
    trials: dict[str, TrialProvenance]
    steps: dict[str, StepProvenance]
    tunings: dict[str, Tuned] = Field(default_factory=dict)
    environment: dict[str, Any] | None


def gather_provenance(results: CampaignResults) -> CampaignProvenance:
    """Collect the provenance of a campaign from the records in its folder."""
    launches, steps = results.launches(), _read_steps(results.folder)
    weights = {run.trial.name: run.result.weights_sha256 for run in results.runs}
    trials: dict[str, TrialProvenance] = {}
    for trial in results.trials:
        launch = launches.get(trial.name)
        trials[trial.name] = TrialProvenance(
            run=results.folder.run_name(trial),
            seed=trial.seed,
            repeat=trial.repeat,
            ranks=trial.ranks,
            weights_sha256=weights.get(trial.name),
            nodes=launch.nodes if launch else (),
            slurm=launch.slurm if launch else None,
            attempts=_attempts(results.folder.run(trial), launch),
        )
    attempts = [attempt for trial in trials.values() for attempt in trial.attempts]
    every_launch: list[Launch] = [*steps.values(), *launches.values()]
    environment = read_environment(results.folder.environment)
    starts = [attempt.started for attempt in attempts]
    starts += [launch.started for launch in every_launch]
    if environment and "started" in environment:
        starts.append(datetime.fromisoformat(environment["started"]))
    ends = [attempt.ended for attempt in attempts if attempt.ended]
    ends += [launch.ended for launch in every_launch]
    jobs = [launch.slurm.job_id for launch in every_launch if launch.slurm]
    jobs += [attempt.job_id for attempt in attempts if attempt.job_id]
    machines = {machine.host: machine for launch in every_launch for machine in launch.machines}
    return CampaignProvenance(
        campaign=results.campaign.name,
        campaign_sha256=campaign_sha256(results.campaign),
        seeds=tuple(results.campaign.seeds),
        started=min(starts, default=None),
        ended=max(ends, default=None),
        job_ids=tuple(dict.fromkeys(jobs)),
        machines=tuple(machines[host] for host in sorted(machines)),
        trials=trials,
        steps={
            name: StepProvenance(
                started=launch.started,
                ended=launch.ended,
                exit_code=launch.exit_code,
                nodes=launch.nodes,
                slurm=launch.slurm,
            )
            for name, launch in steps.items()
        },
        tunings=read_tunings(results.folder, results.trials),
        environment=environment,
    )


def write_provenance(results: CampaignResults) -> CampaignProvenance:
    """Write provenance/provenance.json and return its contents."""
    provenance = gather_provenance(results)
    provenance.write(results.folder.provenance)
    return provenance


def _attempts(run: Path, launch: Launch | None) -> tuple[Attempt, ...]:
    recorded = read_attempts(run / "attempts.json")
    if recorded or launch is None:
        return recorded
    return launch.attempts or (
        Attempt(started=launch.started, ended=launch.ended, exit_code=launch.exit_code),
    )


def _read_steps(folder: CampaignFolder) -> dict[str, Launch]:
    """Return the launches of profiles and plans, but for those of settings of earlier calls."""
    found: dict[str, Launch] = {}
    named = {"profiles": folder.hashes.profiles, "plans": folder.hashes.plans}
    for kind, hashes in named.items():
        of_campaign = {f"{name}-{digest}" for name, digest in hashes.items()}
        for path in sorted((folder.root / kind).glob("*.launch.json")):
            name = path.name.removesuffix(".launch.json")
            if folder.hashes_file.exists() and name not in of_campaign:
                continue
            try:
                found[f"{kind}/{name}"] = Launch.read(path)
            except InputError:  # of another release
                continue
    return found
