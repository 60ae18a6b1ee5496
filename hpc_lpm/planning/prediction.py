"""What a plan is predicted to do under a schedule, by simulation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.disturbances import Disturbances
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.plan_checks import check_plan_of
from hpc_lpm.planning.stage_times import stage_times
from hpc_lpm.profile_file import LayerProfile, Profile
from hpc_lpm.schedules.clock import Jitter, JitteredClock, PipelineClock
from hpc_lpm.schedules.instructions import Pass
from hpc_lpm.schedules.playback import StageTimeline, play
from hpc_lpm.schedules.simulate import Simulation, simulate

SETTLING_STEPS = 16
"""Optimizer steps that are simulated beside those that fill and empty the pipeline."""

MOST_DRAWN = 200_000
"""The passes of all stages up to which there is a timeline of each by itself."""

MOST_SIMULATED = 10 * 2**22
"""The passes forward of all stages that are simulated, in about 1 GiB of memory.

They are ten steps of 4,096 micro-batches on 1,024 stages.
"""


@dataclass(frozen=True)
class Prediction:
    """What a plan is predicted to do.

    Attributes:
        simulation: of `steps` optimizer steps.
        steps: how many.
        samples_per_second: in steady state, on all replicas.
        memory_bytes: of each device.
        timelines: what keeps each stage of the first replica busy, in order; None where there are
            more than `MOST_DRAWN` passes, or replicas that jitter makes wait for each other.
    """

    simulation: Simulation
    steps: int
    samples_per_second: float
    memory_bytes: list[int]
    timelines: list[StageTimeline] | None


def predict(
    profile: Profile,
    plan: Plan,
    options: PlanOptions,
    *,
    steps: int | None = None,
    disturbances: Disturbances | None = None,
) -> Prediction:
    """Simulate the cuts of `plan` as `options` say: their schedule, micro-batches, lead and so on.

    Memory is the cost model's, for that schedule. Without jitter one replica of every stage is
    simulated, since the others do the same; samples are counted over all of them.

    Args:
        profile: times and bytes of the layers.
        plan: the cuts.
        options: how they are used.
        steps: optimizer steps, None for as many as reach a steady state, or for fewer where those
            are more than is simulated.
        disturbances: what makes the pipeline slower than its profile, None for nothing.

    Raises:
        InputError: if the plan is not one of this profile's model and layers, or there is more to
            simulate than `MOST_SIMULATED`.
    """
    check_plan_of(profile, plan)
    stages = len(plan.stages)
    model = CostModel(profile, stages, options)
    disturbances = disturbances or Disturbances()
    jitter, replay = disturbances.jitter, options.weights == "replay"
    simulated = _Simulated(stages, options, options.replicas if jitter else 1)
    steps = simulated.usual_steps(max(model.ahead) + 1) if steps is None else steps
    simulated.check(steps)
    clock = disturbances.slowed(clock_of(model, plan.cuts))
    total = steps * options.micro_batches
    simulation = simulate(
        model.schedule,
        clock,
        options.micro_batches,
        total,
        options.lead,
        replay=replay,
        replicas=options.replicas,
        jitter=jitter,
    )
    drawn = 2 * total * stages <= MOST_DRAWN and (jitter is None or options.replicas == 1)
    period = simulation.period_seconds
    return Prediction(
        simulation=simulation,
        steps=steps,
        samples_per_second=options.replicas * profile.micro_batch / period if period else 0.0,
        memory_bytes=model.device_memory_bytes(plan.cuts),
        timelines=_timelines(model, clock, total, jitter) if drawn else None,
    )


@dataclass(frozen=True)
class _Simulated:
    """What is simulated of a plan: its stages, and those replicas that may differ."""

    stages: int
    options: PlanOptions
    replicas: int

    @property
    def passes_a_step(self) -> int:
        """The passes forward of an optimizer step."""
        return self.options.micro_batches * self.stages * self.replicas

    def usual_steps(self, fullest: int) -> int:
        """Return the steps that are simulated where none are asked for.

        Some of them fill and empty a pipeline whose first stage holds `fullest` micro-batches; of
        those in between there are fewer where all would be more than is simulated.
        """
        filling = 4 * math.ceil(fullest / self.options.micro_batches)
        affordable = MOST_SIMULATED // self.passes_a_step
        return min(SETTLING_STEPS + filling, max(filling, affordable))

    def check(self, steps: int) -> None:
        """Refuse more than is simulated.

        Raises:
            InputError: if so many steps are.
        """
        if steps * self.passes_a_step <= MOST_SIMULATED:
            return
        copies = f" of {self.replicas:,} replicas" if self.replicas > 1 else ""
        raise InputError(
            f"{steps:,} steps of {self.options.micro_batches:,} micro-batches on "
            f"{self.stages:,} stages{copies} are {steps * self.passes_a_step:,} passes forward, "
            f"accepted are up to {MOST_SIMULATED:,}: ask for fewer --steps, micro-batches or a "
            "smaller lead."
        )


def _timelines(
    model: CostModel, clock: PipelineClock, total: int, jitter: Jitter | None
) -> list[StageTimeline]:
    """Return what keeps every stage busy, in order."""
    options = model.options
    programmes = model.schedule.programmes(
        model.stages,
        options.micro_batches,
        total,
        options.lead,
        replay=options.weights == "replay",
        replicas=options.replicas,
    )
    placement = model.schedule.placement(model.stages)
    played: PipelineClock | JitteredClock = clock
    if jitter is not None:
        passes = [sum(isinstance(item, Pass) for item in programme) for programme in programmes]
        played = JitteredClock(clock, jitter, passes, placement)
    return [
        [timed for timed in timeline if timed.end_seconds > timed.start_seconds]
        for timeline in play(programmes, played, placement).timelines
    ]


def clock_of(model: CostModel, cuts: Sequence[int]) -> PipelineClock:
    """Return the clock by which the programmes of a plan with these cuts are played."""
    layers = model.profile.layers
    speeds = model.options.speeds or (1.0,) * model.placement.devices
    held = [layers[start:stop] for start, stop in pairwise(cuts)]
    of_stages = [
        (stage, speeds[model.placement.device(number)]) for number, stage in enumerate(held)
    ]
    return PipelineClock(
        forward_seconds=[
            float(sum(layer.forward_seconds for layer in stage)) / speed
            for stage, speed in of_stages
        ],
        backward_seconds=[
            float(sum(layer.backward_seconds for layer in stage)) / speed
            for stage, speed in of_stages
        ],
        halves_seconds=[
            _halves_seconds(stage, speed, first_stage=number == 0)
            for number, (stage, speed) in enumerate(of_stages)
        ],
        boundary_seconds=[
            float(model.transfer_seconds(boundary, cut)) for boundary, cut in enumerate(cuts[1:-1])
        ],
        overlap=model.overlap,
        averaging_seconds=[float(stage.all_reduce) for stage in stage_times(model, cuts)],
    )


def _halves_seconds(
    layers: Sequence[LayerProfile], speed: float, *, first_stage: bool
) -> tuple[float, float]:
    halves = [layer.halves_seconds(first_stage=first_stage) for layer in layers]
    first, second = (float(sum(half)) / speed for half in zip(*halves, strict=True))
    return first, second
