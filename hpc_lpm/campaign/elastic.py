"""Plans a trial again for fewer devices, where one is gone for good and the campaign allows it.

Micro-batches, batch and schedule stay, and so do planner and profile. Checkpoints name layers, so
that fewer stages go on from them. What such a trial computes is no longer what the campaign has
asked for: it is left out of every table (see `runs.py`).
"""

from dataclasses import dataclass
from pathlib import Path

from hpc_lpm.campaign.contestants import contestant_cuts
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trials import Trial
from hpc_lpm.engine.settings import TrainSettings
from hpc_lpm.errors import InputError
from hpc_lpm.planning.api import plan
from hpc_lpm.profile_file import Profile


@dataclass(frozen=True)
class FewerDevices:
    """A trial on fewer ranks than it was to have, with the plan for as many stages."""

    ranks: int
    stages: int
    plan: Path


def plan_again(
    steps: Steps, trial: Trial, settings: TrainSettings, ranks: int, most: int | None
) -> FewerDevices:
    """Plan a trial for one stage less than it has now, or for as few as there are places.

    The plan is written beside the other files of the run.

    Args:
        steps: those of the campaign.
        trial: the trial.
        settings: its settings.
        ranks: how many ranks it has now.
        most: how many can still be started, None where that is not known.

    Raises:
        InputError: as a clause that says why not, if it has no plan, its cuts are given, it has
            one stage left, or no plan is feasible.
    """
    if trial.planner is None:
        raise InputError(f"{trial.strategy} needs no plan, so that none can be made for fewer")
    if contestant_cuts(steps.campaign, steps.contestant(trial)):
        raise InputError("its cuts are given, so that nobody knows how to cut for fewer")
    fewer = ranks - trial.replicas if most is None else min(ranks - trial.replicas, most)
    stages = fewer // trial.replicas
    if stages < 1 or trial.played:
        raise InputError("no device is left to plan for")
    size = max(1, settings.micro_batch_size // trial.replicas)
    request: dict[str, object] = {**steps.plan_request(trial, settings), "stages": stages}
    try:
        found = plan(Profile.read(steps.profiles_of(trial)[size]), **request)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(str(error).rstrip(".")) from error
    path = steps.folder.run(trial) / f"plan-k{stages}.json"
    found.write(path)
    return FewerDevices(stages * trial.replicas, stages, path)
