"""What a plan is predicted to do under a schedule, by simulation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.plan_checks import check_plan_of
from hpc_lpm.planning.stage_times import stage_times
from hpc_lpm.profile_file import Profile
from hpc_lpm.schedules.simulate import PipelineClock, Simulation, simulate

SETTLING_STEPS = 16
"""Optimizer steps that are simulated beside those that fill and empty the pipeline."""


@dataclass(frozen=True)
class Prediction:
    """A simulation of `steps` optimizer steps, its throughput and each stage's memory."""

    simulation: Simulation
    steps: int
    samples_per_second: float
    memory_bytes: list[int]


def predict(profile: Profile, plan: Plan, options: PlanOptions) -> Prediction:
    """Simulate the cuts of `plan` as `options` say: their schedule, micro-batches, lead and so on.

    Memory is the cost model's, for that schedule. One replica of every stage is simulated, since
    the others do the same; samples are counted over all of them.

    Raises:
        InputError: if the plan is not one of this profile's model and layers.
    """
    check_plan_of(profile, plan)
    stages = len(plan.stages)
    model = CostModel(profile, stages, options)
    fullest = max(model.ahead) + 1
    steps = SETTLING_STEPS + 4 * math.ceil(fullest / options.micro_batches)
    simulation = simulate(
        model.schedule.programmes(
            stages,
            options.micro_batches,
            steps * options.micro_batches,
            options.lead,
            replay=options.weights == "replay",
            replicas=options.replicas,
        ),
        clock_of(model, plan.cuts),
    )
    period = simulation.period_seconds
    return Prediction(
        simulation=simulation,
        steps=steps,
        samples_per_second=options.replicas * profile.micro_batch / period if period else 0.0,
        memory_bytes=[
            model.memory_bytes(stage, start, stop)
            for stage, (start, stop) in enumerate(pairwise(plan.cuts))
        ],
    )


def clock_of(model: CostModel, cuts: Sequence[int]) -> PipelineClock:
    """Return the clock by which the programmes of a plan with these cuts are played."""
    layers = model.profile.layers
    speeds = model.options.speeds or (1.0,) * model.stages
    held = [layers[start:stop] for start, stop in pairwise(cuts)]

    return PipelineClock(
        forward_seconds=[
            float(sum(layer.forward_seconds for layer in stage)) / speed
            for stage, speed in zip(held, speeds, strict=True)
        ],
        backward_seconds=[
            float(sum(layer.backward_seconds for layer in stage)) / speed
            for stage, speed in zip(held, speeds, strict=True)
        ],
        boundary_seconds=[
            float(model.transfer_seconds(boundary, cut)) for boundary, cut in enumerate(cuts[1:-1])
        ],
        overlap=model.overlap,
        averaging_seconds=[float(stage.all_reduce) for stage in stage_times(model, cuts)],
    )
