"""`hpc-lpm plan`: which layers each stage gets, and what that is predicted to cost."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

from hpc_lpm.cli import plan_options as given
from hpc_lpm.cli.app import app
from hpc_lpm.cli.link_options import boundary_links
from hpc_lpm.cli.output import console, print_json
from hpc_lpm.cli.plan_devices import (
    check_stages_alone,
    search,
    search_document,
    show_command,
    show_search,
)
from hpc_lpm.cli.plan_pareto import (
    check_pareto_options,
    check_stages_given,
    plan_pareto,
)
from hpc_lpm.cli.plan_table import show_plan
from hpc_lpm.cli.profile_options import (
    BandwidthOption,
    LatencyOption,
    assumptions,
    link_document,
)
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.candidates import DeviceSearch
from hpc_lpm.planning.explain import explain
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.planners.registry import DEFAULT_PLANNER, planner_named
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profiling.read import read_profile, with_link
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, schedule_named


@app.command("plan")
def plan_command(
    profiles: given.ProfilesArgument,
    *,
    stages: given.StagesOption = None,
    devices: given.DevicesOption = None,
    global_batch: given.GlobalBatchOption = None,
    planner: given.PlannerOption = DEFAULT_PLANNER,
    schedule: given.ScheduleOption = DEFAULT_SCHEDULE,
    tolerance: given.ToleranceOption = 0.02,
    memory_limit: given.MemoryLimitOption = None,
    lead: given.LeadOption = None,
    micro_batches: given.MicroBatchesOption = None,
    weights: given.WeightsOption = None,
    optimizer: given.OptimizerOption = "momentum",
    overlap: given.OverlapOption = None,
    speeds: given.SpeedsOption = None,
    latency: LatencyOption = None,
    bandwidth: BandwidthOption = None,
    links: given.LinksOption = None,
    node_link: given.NodeLinkOption = None,
    devices_per_node: given.DevicesPerNodeOption = None,
    pareto: given.ParetoOption = False,
    pareto_within: given.ParetoWithinOption = None,
    figure: given.FigureOption = None,
    out: given.OutOption = None,
    as_json: given.JsonOption = False,
) -> None:
    """Merge neighbouring layers into stages."""
    chosen = planner_named(planner)
    schedule_named(schedule).check_options(lead=lead, weights=weights)
    check_pareto_options(pareto=pareto, planner=planner, within=pareto_within, figure=figure)
    read = [with_link(read_profile(profile), latency, bandwidth) for profile in profiles]
    asked = {
        "tolerance": tolerance,
        "memory_limit": given.memory_limit_of(memory_limit),
        "schedule": schedule,
        "lead": lead,
        "micro_batches": micro_batches,
        "weights": weights,
        "optimizer": optimizer,
        "overlap": overlap,
        "speeds": given.speeds_of(speeds),
        "links": boundary_links(read[0], stages, links, node_link, devices_per_node),
    }
    known = {name: value for name, value in asked.items() if value is not None}
    options = PlanOptions.checked(**known)
    if stages is None:
        check_stages_given(pareto=pareto)
        found = search(
            read,
            devices,
            global_batch,
            options,
            planner=planner,
            lead=lead,
            micro_batches=micro_batches,
        )
        number = next(number for number, one in enumerate(read) if one is found.best.model.profile)
        plan = price_plan(found.best.model, found.best.cuts, planner, _sha256(profiles[number]))
        _deliver(plan, found.best.model, out=out, as_json=as_json, found=found)
        return
    check_stages_alone(profiles, devices, global_batch)
    model, sha256 = CostModel(read[0], stages, options), _sha256(profiles[0])
    if pareto:
        plan_pareto(model, sha256, within=pareto_within, figure=figure, out=out, as_json=as_json)
        return
    plan = price_plan(model, chosen.cuts(model), planner, sha256)
    _deliver(plan, model, out=out, as_json=as_json)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _deliver(
    plan: Plan,
    model: CostModel,
    *,
    out: Path | None,
    as_json: bool,
    found: DeviceSearch | None = None,
) -> None:
    """Write the plan and print it, with the search over devices that it came from, if any."""
    explanation = explain(model, plan.cuts)
    if found is not None:
        # Other stages and leads have been compared already.
        explanation = replace(explanation, hints=())
    if out is not None:
        plan.write(out)
    if as_json:
        document = {
            **plan.model_dump(mode="json"),
            "explanation": asdict(explanation),
            "link": link_document(model.profile),
            "assumptions": assumptions(model.profile),
        }
        print_json({**document, **({"search": search_document(found, out)} if found else {})})
        return
    if found is not None:
        show_search(found)
    show_plan(plan, model, explanation)
    if out is not None:
        console().print(f"Written to {out}.")
    if found is not None:
        show_command(found, out)
