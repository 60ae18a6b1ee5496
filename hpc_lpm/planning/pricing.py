"""Turn a profile into a plan: a planner chooses the cuts, and the cost model prices them."""

from itertools import pairwise

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.planning.planners.registry import DEFAULT_PLANNER, planner_named
from hpc_lpm.profile import Profile


def make_plan(
    profile: Profile,
    profile_sha256: str,
    stages: int,
    planner: str = DEFAULT_PLANNER,
    options: PlanOptions | None = None,
) -> Plan:
    """Return the plan that `planner` makes of `profile`, whose file has hash `profile_sha256`.

    Raises:
        InputError: if the planner is unknown, or as `CostModel` and the planner's `cuts`.
    """
    chosen = planner_named(planner)
    model = CostModel(profile, stages, options or PlanOptions())
    return price_plan(model, chosen.cuts(model), planner, profile_sha256)


def price_plan(model: CostModel, cuts: tuple[int, ...], planner: str, profile_sha256: str) -> Plan:
    """Return the plan with the given cuts, K+1 positions from 0 to L, and its predicted cost."""
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
            )
            for stage, (start, stop) in enumerate(pairwise(cuts))
        ),
        period_seconds=float(model.period(cuts)),
        boundary_bytes=model.boundary_bytes(cuts),
        profile_sha256=profile_sha256,
        micro_batch=model.profile.micro_batch,
        options={**model.options.model_dump(mode="json"), "overlap": model.overlap},
    )
