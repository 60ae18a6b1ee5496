"""Seconds a step on emulated devices, beside a flushing schedule's."""

from itertools import pairwise
from pathlib import Path

import pandas as pd

from benchmarks.race import Contestant, race
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

MEAN_STAGE_SECONDS = 0.09
"""Forward and backward of a micro-batch on a stage: two cores run the Python of all ranks."""

CONTESTANTS = ("fbp", "1f1b", "deepspeed-1f1b")
_MICRO_BATCH, _STEPS = 2, 10


def planned_passes(profile: Profile, plan: Plan) -> list[tuple[float, float]]:
    """Return the seconds that the profile's layers add up to on each stage, forward and backward.

    All are made longer by one factor, so that the mean stage takes `MEAN_STAGE_SECONDS`.
    """
    passes = [
        (
            sum(layer.forward_seconds for layer in profile.layers[start:stop]),
            sum(layer.backward_seconds for layer in profile.layers[start:stop]),
        )
        for start, stop in pairwise(plan.cuts)
    ]
    factor = MEAN_STAGE_SECONDS * len(passes) / sum(map(sum, passes))
    return [(factor * forward, factor * backward) for forward, backward in passes]


def equal_passes(stages: int) -> list[tuple[float, float]]:
    """Return the seconds of stages that all take the same, a third of it forward."""
    return [(MEAN_STAGE_SECONDS / 3, 2 * MEAN_STAGE_SECONDS / 3)] * stages


def emulated_steps(
    passes: list[tuple[float, float]],
    output_bytes: int,
    micro_batches: int,
    repeats: int,
    folder: Path,
) -> pd.DataFrame:
    """Race schedules on emulated devices and return one row per training, with `step_units`.

    A step of 1 unit is M (F + B + W), what the mean stage computes in a step.

    Args:
        passes: seconds of every stage's forward and backward of a micro-batch.
        output_bytes: what crosses each boundary, one way.
        micro_batches: M.
        repeats: turns of the race.
        folder: for the profile and the plan of the devices.
    """
    stages = len(passes)
    devices = Profile(
        model="emulated",
        micro_batch=_MICRO_BATCH,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name="device",
                forward_seconds=forward,
                backward_seconds=backward,
                output_bytes=output_bytes,
                parameter_bytes=4,
                activation_bytes=0,
            )
            for forward, backward in passes
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1e9),
    )
    path, plan = folder / "profile.json", folder / "plan.json"
    devices.write(path)
    cost = CostModel(devices, stages, PlanOptions(micro_batches=micro_batches))
    price_plan(cost, tuple(range(stages + 1)), "one layer a device", "").write(plan)
    settings = {
        "model": f"replay:{path}",
        "dataset": f"synthetic,samples={_MICRO_BATCH * micro_batches * _STEPS}",
        "plan": str(plan),
        "batch_size": _MICRO_BATCH * micro_batches,
        "micro_batches": micro_batches,
        "steps": _STEPS,
    }
    entered = [Contestant(name, {**settings, "strategy": name}) for name in CONTESTANTS]
    rows = race(entered, stages, repeats)
    seconds = _MICRO_BATCH * micro_batches / rows["samples_per_second"]
    return rows.assign(
        stages=stages,
        micro_batches=micro_batches,
        slowest_stage_over_mean=max(map(sum, passes)) / MEAN_STAGE_SECONDS,
        step_units=seconds / (micro_batches * MEAN_STAGE_SECONDS),
    )
