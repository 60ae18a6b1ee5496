"""From a profile to a plan: let a planner choose the cuts, then price them."""

from itertools import pairwise

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.planning.planners.registry import planner_named
from hpc_lpm.profile import Profile


def make_plan(
    profile: Profile,
    profile_sha256: str,
    stages: int,
    planner: str = "lpm",
    options: PlanOptions | None = None,
) -> Plan:
    """Return the plan that `planner` makes of `profile`; `profile_sha256` is that of its file.

    Raises:
        InputError: if the planner is unknown, there are more stages than layers, an option that
            needs one entry a stage has another number, or the planner found no plan within the
            memory limits (no other planner than `lpm` looks at them).
    """
    chosen = planner_named(planner)
    model = CostModel(profile, stages, options or PlanOptions())
    return price_plan(model, chosen.cuts(model), planner, profile_sha256)


def price_plan(model: CostModel, cuts: tuple[int, ...], planner: str, profile_sha256: str) -> Plan:
    """Return a plan of given cuts (K+1 positions from 0 to L) with what it is predicted to cost."""
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
            )
            for stage, (start, stop) in enumerate(pairwise(cuts))
        ),
        period_seconds=float(model.period(cuts)),
        boundary_bytes=model.boundary_bytes(cuts),
        profile_sha256=profile_sha256,
        options={**model.options.model_dump(mode="json"), "overlap": model.overlap},
    )
