"""`hpc-lpm plan`: which layers each stage gets, and what that is predicted to cost."""

from dataclasses import asdict, replace
from pathlib import Path

from hpc_lpm.cli import plan_options as given
from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json
from hpc_lpm.cli.outputs import check_output, named_inputs
from hpc_lpm.cli.plan_devices import (
    search_document,
    show_command,
    show_search,
)
from hpc_lpm.cli.plan_pareto import (
    check_one_stage_each,
    check_pareto_options,
    check_stages_given,
    plan_pareto,
)
from hpc_lpm.cli.plan_table import plan_assumptions, show_plan
from hpc_lpm.cli.profile_options import (
    BandwidthOption,
    LatencyOption,
    link_document,
)
from hpc_lpm.planning.devices.candidates import THROUGHPUT
from hpc_lpm.planning.explain import explain_in_layers
from hpc_lpm.planning.request import Answer, PlanRequest, ProfileAndHash
from hpc_lpm.recipes import NO_RECIPE


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
    schedule: given.ScheduleOption = None,
    chunks: given.ChunksOption = None,
    tolerance: given.ToleranceOption = 0.02,
    memory_limit: given.MemoryLimitOption = None,
    lead: given.LeadOption = None,
    micro_batches: given.MicroBatchesOption = None,
    weights: given.WeightsOption = None,
    optimizer: given.OptimizerOption = "momentum",
    prediction_rule: given.PredictionRuleOption = None,
    recipe: given.RecipeOption = NO_RECIPE,
    objective: given.ObjectiveOption = THROUGHPUT,
    efficiency: given.EfficiencyOption = None,
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
    inputs = [*profiles, *([efficiency] if efficiency else []), *named_inputs(planner, schedule)]
    check_output("--out", out, kind="plan", inputs=inputs)
    check_output("--figure", figure, inputs=[*inputs, *([out] if out else [])])
    check_pareto_options(
        pareto=pareto, planner=planner, cuts=cuts, within=pareto_within, figure=figure
    )
    request = PlanRequest.of(
        [ProfileAndHash.read(profile) for profile in profiles],
        stages=stages,
        devices=devices,
        global_batch=global_batch,
        cuts=cuts,
        cut_only_at=cut_only_at,
        planner=planner,
        schedule=schedule,
        chunks=chunks,
        tolerance=tolerance,
        memory_limit=memory_limit,
        lead=lead,
        micro_batches=micro_batches,
        weights=weights,
        optimizer=optimizer,
        prediction_rule=prediction_rule,
        recipe=recipe,
        objective=objective,
        efficiency=efficiency,
        overlap=overlap,
        speeds=speeds,
        latency=latency,
        bandwidth=bandwidth,
        links=links,
        node_link=node_link,
        devices_per_node=devices_per_node,
    )
    if pareto:
        check_stages_given(request.stages)
        model, blocks = request.in_stages()
        check_one_stage_each(model)
        plan_pareto(
            model,
            blocks,
            request.hashes[0],
            within=pareto_within,
            figure=figure,
            out=out,
            as_json=as_json,
        )
        return
    _deliver(request.answer(), out=out, as_json=as_json)


def _deliver(answer: Answer, *, out: Path | None, as_json: bool) -> None:
    """Write the plan and print it, with the search over devices that it came from, if any."""
    plan, model, found = answer.plan, answer.model, answer.search
    explanation = explain_in_layers(model, plan.cuts, answer.blocks)
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
            "assumptions": plan_assumptions(model),
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
