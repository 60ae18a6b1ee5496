"""Trains the contestants of a race in turn, again and again; run it under mpirun.

    race_ranks.py RACE.json OUT.json

All contestants share the ranks, so that one repeat of them all takes seconds, and a machine whose
speed drifts within minutes treats them alike.
"""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.race_turns import Outcome, take_turns
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.job import Job
from hpc_lpm.engine.settings import checked_settings
from hpc_lpm.engine.training import Training
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profiling.job import profile_in_job


def trained(job: Job, settings: dict, folder: Path) -> dict | None:
    """Train once and return, on rank 0, the measurements that the race compares."""
    result = Training(checked_settings(**settings, checkpoint_epochs=0), job).run(folder, None)
    if result is None:
        return None
    # Leave out the filling and emptying of pipelines, for every contestant alike.
    steady = result.step_seconds[2:-1]
    rate = settings["batch_size"] * len(steady) / sum(steady)
    micro_batches = settings["micro_batches"] * len(result.step_seconds)
    return {
        "samples_per_second": (
            result.samples_per_second if settings["strategy"] == "limit" else rate
        ),
        # The median of the same steps, because a layer's profile is a median as well.
        "median_step_seconds": median(steady),
        "with_warm_up_and_drain": settings["batch_size"]
        * len(result.step_seconds)
        / result.training_seconds,
        "milliseconds_by_kind": [
            {kind: 1e3 * seconds / micro_batches for kind, seconds in rank.items()}
            for rank in result.seconds_by_kind
        ],
        "idle_share": result.idle_share,
    }


def predicted(job: Job, settings: dict) -> dict | None:
    """Profile on all ranks at once and return, on rank 0, the predicted rate of a plan's cuts."""
    data = load_dataset(settings["dataset"])
    micro_batch = settings["batch_size"] // settings["micro_batches"]
    model = create_model(settings["model"], data.shape)
    repeats = settings.get("profile_repeats", 5)
    profile = profile_in_job(model, data, micro_batch, repeats=repeats)
    if job.rank != 0:
        return None
    plan = Plan.read(Path(settings["plan"]))
    options = PlanOptions(micro_batches=settings["micro_batches"], weights=settings["weights"])
    cost = CostModel(profile, len(plan.stages), options)
    again = price_plan(cost, plan.cuts, plan.planner, plan.profile_sha256)
    return {"samples_per_second": micro_batch / again.period_seconds}


def outcome_of(job: Job, contestant: dict[str, Any], folder: Path) -> Outcome:
    """Let a contestant train, or predict its rate."""
    settings = dict(contestant["settings"])
    if contestant["kind"] == "predicted":
        return predicted(job, settings)
    return trained(job, settings, folder)


take_turns(outcome_of)
