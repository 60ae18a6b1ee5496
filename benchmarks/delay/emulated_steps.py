"""Seconds a step on emulated devices that take a profile's times, beside a flushing schedule's."""

from itertools import pairwise
from pathlib import Path

import pandas as pd

from benchmarks.race import Contestant, race
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.registry import planner_named
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

MEAN_STAGE_SECONDS = 0.09
"""Forward and backward of a micro-batch on a stage: two cores run the Python of all ranks."""

CONTESTANTS = ("fbp", "1f1b", "deepspeed-1f1b")
_MICRO_BATCH, _STEPS = 2, 12


def emulated_steps(
    profile: Profile, stages: int, micro_batches: int, repeats: int, folder: Path
) -> pd.DataFrame:
    """Race schedules on emulated devices and return one row per training, with `step_units`.

    The devices take the times that the profile's layers add up to on the stages of an optimal plan,
    all made longer by one factor. A step of 1 unit is M (F + B + W), what the mean stage computes
    in a step.
    """
    cost = CostModel(profile, stages, PlanOptions(weights="live", micro_batches=micro_batches))
    cuts = planner_named("lpm")(cost)
    passes = [
        (
            sum(layer.forward_seconds for layer in profile.layers[start:stop]),
            sum(layer.backward_seconds for layer in profile.layers[start:stop]),
            profile.layers[stop - 1].output_bytes,
        )
        for start, stop in pairwise(cuts)
    ]
    factor = (
        MEAN_STAGE_SECONDS * stages / sum(forward + backward for forward, backward, _ in passes)
    )
    devices = Profile(
        model="emulated",
        micro_batch=_MICRO_BATCH,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name="device",
                forward_seconds=factor * forward,
                backward_seconds=factor * backward,
                output_bytes=output,
                parameter_bytes=4,
                activation_bytes=0,
            )
            for forward, backward, output in passes
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    )
    path = folder / f"profile-emulated-{stages}.json"
    devices.write(path)
    plan = folder / f"plan-emulated-{stages}.json"
    own = CostModel(devices, stages, PlanOptions(weights="live", micro_batches=micro_batches))
    price_plan(own, tuple(range(stages + 1)), "one layer a device", "").write(plan)
    settings = {
        "model": f"replay:{path}",
        "dataset": f"synthetic,samples={_MICRO_BATCH * micro_batches * _STEPS}",
        "plan": str(plan),
        "batch_size": _MICRO_BATCH * micro_batches,
        "micro_batches": micro_batches,
        "steps": _STEPS,
        "weights": "live",
    }
    entered = [Contestant(name, {**settings, "strategy": name}) for name in CONTESTANTS]
    rows = race(entered, stages, repeats)
    seconds = _MICRO_BATCH * micro_batches / rows["samples_per_second"]
    return rows.assign(
        stages=stages,
        micro_batches=micro_batches,
        step_units=seconds / (micro_batches * MEAN_STAGE_SECONDS),
    )
