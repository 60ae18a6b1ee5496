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
    latency_of,
    link_document,
)
from hpc_lpm.files import check_can_write
from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.cut_names import CUT_ONLY_AT, CUTS
from hpc_lpm.planning.devices.candidates import DeviceSearch
from hpc_lpm.planning.explain import explain_in_layers
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.own_split import OWN, check_within_limits
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.planners.registry import DEFAULT_PLANNER, planner_named
from hpc_lpm.planning.pricing import price_plan, searched_cuts
from hpc_lpm.profile_formats.read import read_profile, with_link
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, schedule_named


@app.command("plan")
def plan_command(
    profiles: given.ProfilesArgument,
    *,
    stages: given.StagesOption = None,
    devices: given.DevicesOption = None,
    global_batch: given.GlobalBatchOption = None,
    cuts: given.CutsOption = None,
    cut_only_at: given.CutOnlyAtOption = None,
    planner: given.PlannerOption = None,
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
    if out is not None:
        check_can_write(out)
    own = given.names_of(CUTS, cuts)
    if own:
        stages = given.stages_of(own, stages, planner=planner, pareto=pareto)
    name = OWN if own else planner_named(planner or DEFAULT_PLANNER).name
    schedule_named(schedule).check_options(lead=lead, weights=weights)
    check_pareto_options(pareto=pareto, planner=planner, within=pareto_within, figure=figure)
    delay = latency_of("--latency", latency)
    read = [with_link(read_profile(profile), delay, bandwidth) for profile in profiles]
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
        "cut_only_at": given.names_of(CUT_ONLY_AT, cut_only_at),
    }
    known = {name: value for name, value in asked.items() if value is not None}
    options = PlanOptions.checked(**known)
    blocks = [Blocks.of(one, options.cut_only_at) for one in read]
    if stages is None:
        check_stages_given(pareto=pareto)
        found = search(
            blocks,
            devices,
            global_batch,
            options,
            planner=name,
            lead=lead,
            micro_batches=micro_batches,
        )
        best = found.best
        number = next(place for place, one in enumerate(read) if one is best.model.profile)
        plan = price_plan(best.model, best.cuts, name, _sha256(profiles[number]))
        _deliver(plan, best.model, blocks[number], out=out, as_json=as_json, found=found)
        return
    check_stages_alone(CUTS if own else "--stages", profiles, devices, global_batch)
    (whole,), sha256 = blocks, _sha256(profiles[0])
    whole.allowed.check_stages(stages)
    model = CostModel(whole.profile, stages, options)
    if pareto:
        plan_pareto(
            model, whole, sha256, within=pareto_within, figure=figure, out=out, as_json=as_json
        )
        return
    _deliver(_plan(model, whole, own, name, sha256), model, whole, out=out, as_json=as_json)


def _plan(
    model: CostModel, blocks: Blocks, own: tuple[str, ...], planner: str, sha256: str
) -> Plan:
    """Return the plan with the user's own cuts if there are any, else with the planner's."""
    if own:
        cuts = blocks.allowed.own(own)
        check_within_limits(model, cuts)
    else:
        cuts = searched_cuts(blocks, model.stages, model.options, planner)
    return price_plan(model, cuts, planner, sha256)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _deliver(
    plan: Plan,
    model: CostModel,
    blocks: Blocks,
    *,
    out: Path | None,
    as_json: bool,
    found: DeviceSearch | None = None,
) -> None:
    """Write the plan and print it, with the search over devices that it came from, if any."""
    explanation = explain_in_layers(model, plan.cuts, blocks)
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
        console().print(f"Written to {out}.", soft_wrap=True)
    if found is not None:
        show_command(found, out)
