"""`hpc-lpm plan`: which layers each stage gets, and what that is predicted to cost."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

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
    PROFILE_HELP,
    BandwidthOption,
    LatencyOption,
    assumptions,
    link_document,
)
from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import explain
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.registry import planner_named
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profiling.read import read_profile, with_link


@app.command("plan")
def plan_command(
    profiles: Annotated[
        list[Path],
        typer.Argument(
            metavar="PROFILE...",
            help=f"{PROFILE_HELP} With --devices one or more, of different micro-batches.",
        ),
    ],
    *,
    stages: Annotated[int | None, typer.Option(help="Stages to merge the layers into.")] = None,
    devices: Annotated[
        int | None,
        typer.Option(help="Devices to share among stages and their replicas, instead of --stages."),
    ] = None,
    global_batch: Annotated[
        int | None, typer.Option(help="Samples of an optimizer step on all --devices.")
    ] = None,
    planner: Annotated[str, typer.Option(help="Planner, see `hpc-lpm planners`.")] = "lpm",
    tolerance: Annotated[
        float, typer.Option(help="Share of the period to give up for fewer bytes.")
    ] = 0.02,
    memory_limit: Annotated[
        str | None, typer.Option(help="Bytes of a stage; one number, or one a stage: 1,2,3.")
    ] = None,
    lead: Annotated[
        int | None,
        typer.Option(help="Micro-batches of lead a stage: by default 1, or searched."),
    ] = None,
    micro_batches: Annotated[
        int | None,
        typer.Option(help="Micro-batches of an optimizer step: by default 4, or searched."),
    ] = None,
    weights: Annotated[str, typer.Option(help="replay, live or stash.")] = "replay",
    optimizer: Annotated[
        str, typer.Option(help="sgd, momentum, adam, adamw or other (two copies of the weights).")
    ] = "momentum",
    overlap: Annotated[
        bool | None,
        typer.Option(
            "--overlap/--no-overlap",
            help="Whether transfers hide behind compute; by default the profile says.",
        ),
    ] = None,
    speeds: Annotated[
        str | None, typer.Option(help="Speed of every stage's device: 1,1,0.5.")
    ] = None,
    latency: LatencyOption = None,
    bandwidth: BandwidthOption = None,
    links: Annotated[
        str | None,
        typer.Option(
            help="LATENCY:BANDWIDTH between stages, one a boundary, separated by commas; or "
            "`measured`: those between the ranks that profiled."
        ),
    ] = None,
    node_link: Annotated[
        str | None,
        typer.Option(help="LATENCY:BANDWIDTH between nodes; the profile's is that inside."),
    ] = None,
    devices_per_node: Annotated[
        int | None, typer.Option(help="Neighbouring stages that share a node, with --node-link.")
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Show all plans that no other plan beats.")
    ] = False,
    pareto_within: Annotated[
        float | None,
        typer.Option(help="With --pareto: share that periods may be above the least; else any."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="With --pareto: file to draw the plans into (SVG).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write the plan to (JSON).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Merge neighbouring layers into stages."""
    chosen = planner_named(planner)
    check_pareto_options(pareto=pareto, planner=planner, within=pareto_within, figure=figure)
    read = [with_link(read_profile(profile), latency, bandwidth) for profile in profiles]
    options = PlanOptions.checked(
        tolerance=tolerance,
        memory_limit=_memory_limit(memory_limit),
        lead=1 if lead is None else lead,
        micro_batches=4 if micro_batches is None else micro_batches,
        weights=weights,
        optimizer=optimizer,
        overlap=overlap,
        speeds=_speeds(speeds),
        links=boundary_links(read[0], stages, links, node_link, devices_per_node),
    )
    sha256s = [hashlib.sha256(profile.read_bytes()).hexdigest() for profile in profiles]
    found = None
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
        model, cuts = found.best.model, found.best.cuts
    else:
        check_stages_alone(profiles, devices, global_batch)
        model = CostModel(read[0], stages, options)
        if pareto:
            plan_pareto(
                model, sha256s[0], within=pareto_within, figure=figure, out=out, as_json=as_json
            )
            return
        cuts = chosen.cuts(model)
    planned = next(number for number, one in enumerate(read) if one is model.profile)
    plan = price_plan(model, cuts, planner, sha256s[planned])
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


def _memory_limit(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(
            f"--memory-limit is {text!r}, accepted is a whole number of bytes above 0, "
            f"or one a stage separated by commas."
        )
    limits = tuple(int(part) for part in parts)
    return limits if len(limits) > 1 else limits[0]


def _speeds(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--speeds is {text!r}, accepted are numbers separated by commas, one a stage."
        ) from None
