"""Profiles, plans, predicts and trains random runs one after the other; run it under mpirun.

predicted_ranks.py RACE.json OUT.json
"""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.race_turns import Outcome, take_turns
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.engine.training import Training
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.api import plan
from hpc_lpm.planning.options import PlanOptions, planned_optimizer
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.prediction import predict
from hpc_lpm.profile_file import Profile
from hpc_lpm.profiling.job import profile_in_job

_REPEATS = 9
_FILLING, _DRAINING = 3, 2
"""Steps that are left out at either end of a training."""


def outcome_of(job: Job, contestant: dict[str, Any], folder: Path) -> Outcome:
    """Predict a run from a profile that the same ranks have just taken, and train it."""
    given = dict(contestant["settings"])
    emulated = given.pop("profile", None)
    settings = checked_settings(**given, checkpoint_epochs=0, trace_steps=0)
    profile = Profile.read(emulated) if emulated else _profiled(job, given)
    options = {
        **strategy_named(settings.strategy).plan_options(settings),
        "micro_batches": settings.micro_batches,
        "optimizer": planned_optimizer(settings.optimizer),
    }
    made = plan(profile, stages=job.size, **options) if job.rank == 0 else None
    made = job.broadcast(made)
    assert isinstance(made, Plan)
    path = folder / "plan.json"
    made.write(path)
    result = Training(settings.model_copy(update={"plan": path}), job).run(folder, None)
    if result is None:
        return None
    steady = result.step_seconds[_FILLING:-_DRAINING]
    predicted = predict(profile, made, PlanOptions.checked(**options))
    rate = settings.batch_size / median(steady)
    return {
        "cuts": str(made.cuts),
        "predicted_samples_per_second": predicted.samples_per_second,
        "measured_samples_per_second": rate,
        "error": predicted.samples_per_second / rate - 1,
    }


def _profiled(job: Job, settings: dict[str, Any]) -> Profile:
    data = load_dataset(settings["dataset"])
    model = create_model(settings["model"], data.shape)
    micro_batch = settings["batch_size"] // settings["micro_batches"]
    profile = profile_in_job(model, data, micro_batch, repeats=_REPEATS)
    found: Profile = job.broadcast(profile)
    return found


take_turns(outcome_of)
