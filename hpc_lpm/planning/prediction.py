"""What a plan is predicted to do under a schedule, by simulation."""

import math
from dataclasses import dataclass
from itertools import pairwise

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import OPTIMIZER_COPIES, PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.stage_times import stage_times
from hpc_lpm.profile import Profile
from hpc_lpm.schedules.base import Schedule
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


def predict(profile: Profile, plan: Plan, schedule: Schedule, options: PlanOptions) -> Prediction:
    """Simulate `plan` under `schedule`; micro-batches, lead, weights and so on come from `options`.

    Memory is that of the planner's cost model, with the micro-batches that the schedule really
    holds and the weight versions that it really needs. One replica of every stage is simulated, the
    others do the same; samples are those of all.

    Raises:
        InputError: if the plan is not one of this profile's model and layers.
    """
    if plan.model != profile.model or plan.cuts[-1] != len(profile.layers):
        raise InputError(
            f"the plan is one of {plan.model} with {plan.cuts[-1]} layers, the profile one of "
            f"{profile.model} with {len(profile.layers)}: make the plan from this profile."
        )
    stages = len(plan.stages)
    model = CostModel(profile, stages, options)
    delays = [
        schedule.version_delay(
            stage, stages, options.micro_batches, options.lead, replicas=options.replicas
        )
        for stage in range(stages)
    ]
    in_flight = schedule.in_flight_bounds(stages, options.micro_batches, options.lead)[0]
    steps = SETTLING_STEPS + 4 * math.ceil(in_flight / options.micro_batches)
    simulation = simulate(
        schedule.programmes(
            stages,
            options.micro_batches,
            steps * options.micro_batches,
            options.lead,
            replay=options.weights == "replay",
            replicas=options.replicas,
        ),
        _clock(model, plan, options),
    )
    period = simulation.period_seconds
    return Prediction(
        simulation=simulation,
        steps=steps,
        samples_per_second=options.replicas * profile.micro_batch / period if period else 0.0,
        memory_bytes=[
            _memory_bytes(model, start, stop, delay, held)
            for (start, stop), delay, held in zip(
                pairwise(plan.cuts), delays, simulation.peak_in_flight, strict=True
            )
        ],
    )


def _clock(model: CostModel, plan: Plan, options: PlanOptions) -> PipelineClock:
    layers = model.profile.layers
    speeds = options.speeds or (1.0,) * model.stages
    held = [layers[stage.start : stage.stop] for stage in plan.stages]

    return PipelineClock(
        forward_seconds=[
            sum(layer.forward_seconds for layer in stage) / speed
            for stage, speed in zip(held, speeds, strict=True)
        ],
        backward_seconds=[
            sum(layer.backward_seconds for layer in stage) / speed
            for stage, speed in zip(held, speeds, strict=True)
        ],
        boundary_seconds=[
            float(model.transfer_seconds(boundary, cut))
            for boundary, cut in enumerate(plan.cuts[1:-1])
        ],
        overlap=model.overlap,
        averaging_seconds=[float(stage.all_reduce) for stage in stage_times(model, plan.cuts)],
    )


def _memory_bytes(model: CostModel, start: int, stop: int, delay: int, held: int) -> int:
    options = model.options
    copies = 2 + OPTIMIZER_COPIES[options.optimizer]
    if options.weights == "stash":
        copies += math.ceil(delay / options.micro_batches)
    parameters = model.parameter_sums[stop] - model.parameter_sums[start]
    activations = model.activation_sums[stop] - model.activation_sums[start]
    return copies * parameters + held * activations
