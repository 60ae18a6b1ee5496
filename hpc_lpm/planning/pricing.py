"""Turn a profile into a plan: a planner chooses the cuts, and the cost model prices them."""

from itertools import pairwise

from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.chunks import evened_out
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.memory import matrix_bytes
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan, PlannedLayer, StagePlan
from hpc_lpm.planning.planners.registry import DEFAULT_PLANNER, planner_named
from hpc_lpm.planning.worth.expected import StepWorth
from hpc_lpm.planning.worth.lag import Lag
from hpc_lpm.profile_file import Profile


def make_plan(
    profile: Profile,
    profile_sha256: str,
    stages: int,
    planner: str = DEFAULT_PLANNER,
    options: PlanOptions | None = None,
) -> Plan:
    """Return the plan that `planner` makes of `profile`, whose file has hash `profile_sha256`.

    Raises:
        InputError: as `Blocks.of` and `searched_cuts`.
    """
    options = options or PlanOptions()
    blocks = Blocks.of(profile, options.cut_only_at)
    cuts = searched_cuts(blocks, stages, options, planner)
    model = CostModel(profile, options.stages_on(stages), options)
    return price_plan(model, cuts, planner, profile_sha256)


def searched_cuts(
    blocks: Blocks, stages: int, options: PlanOptions, planner: str
) -> tuple[int, ...]:
    """Return the cut positions that a planner chooses among those that are allowed.

    Under a schedule with chunks, of which every one of the `stages` devices holds several, the
    planner shares the model out among the chunks, and its cuts are then moved as long as that
    evens out the devices.

    Raises:
        InputError: if the planner is unknown, the allowed cuts are too few for the stages, or as
            `CostModel` and the planner's `cuts`.
    """
    chosen = planner_named(planner)
    pieces = options.stages_on(stages)
    blocks.allowed.check_stages(pieces)
    model = CostModel(blocks.merged, pieces, options)
    return blocks.in_layers(evened_out(model, chosen.cuts(model)))


def price_plan(
    model: CostModel,
    cuts: tuple[int, ...],
    planner: str,
    profile_sha256: str,
    step_worth: StepWorth | None = None,
) -> Plan:
    """Return the plan with the given cuts, K+1 positions from 0 to L, and its predicted cost."""
    lag = Lag.of(model.schedule, model.stages, model.options)
    return Plan(
        planner=planner,
        model=model.profile.model,
        stages=tuple(
            StagePlan(
                start=start,
                stop=stop,
                compute_seconds=float(model.compute_seconds(stage, start, stop)),
                send_bytes=model.cut_bytes[stop],
                memory_bytes=model.memory_bytes(stage, start, stop),
                parameter_bytes=model.parameter_sums[stop] - model.parameter_sums[start],
                activation_bytes=model.activation_sums[stop] - model.activation_sums[start],
                matrix_parameter_bytes=matrix_bytes(model.profile.layers[start:stop]),
            )
            for stage, (start, stop) in enumerate(pairwise(cuts))
        ),
        period_seconds=float(model.device_period(cuts)),
        boundary_bytes=model.boundary_bytes(cuts),
        profile_sha256=profile_sha256,
        micro_batch=model.profile.micro_batch,
        options={**model.options.model_dump(mode="json"), "overlap": model.overlap},
        link=model.profile.link,
        inputs=model.profile.inputs,
        lag_mean=float(lag.mean),
        lag_largest=lag.largest,
        step_worth=step_worth,
        layers=tuple(
            PlannedLayer(name=layer.name, fingerprint=layer.fingerprint)
            for layer in model.profile.layers
        ),
    ).sealed()
