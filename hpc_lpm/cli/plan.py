"""`hpc-lpm plan`: which layers each stage gets, and what that is predicted to cost."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.link_options import boundary_links
from hpc_lpm.cli.output import console, print_json
from hpc_lpm.cli.plan_pareto import check_pareto_options, plan_pareto
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
from hpc_lpm.planning.make import price_plan
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.registry import planner_named
from hpc_lpm.profiling.read import read_profile, with_link


@app.command("plan")
def plan_command(
    profile: Annotated[Path, typer.Argument(help=PROFILE_HELP)],
    *,
    stages: Annotated[int, typer.Option(help="Stages to merge the layers into.")],
    planner: Annotated[str, typer.Option(help="Planner, see `hpc-lpm planners`.")] = "lpm",
    tolerance: Annotated[
        float, typer.Option(help="Share of the period to give up for fewer bytes.")
    ] = 0.02,
    memory_limit: Annotated[
        str | None, typer.Option(help="Bytes of a stage; one number, or one a stage: 1,2,3.")
    ] = None,
    lead: Annotated[int, typer.Option(help="Micro-batches of lead a stage.")] = 1,
    micro_batches: Annotated[int, typer.Option(help="Micro-batches of an optimizer step.")] = 4,
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
    profiled = with_link(read_profile(profile), latency, bandwidth)
    options = PlanOptions.checked(
        tolerance=tolerance,
        memory_limit=_memory_limit(memory_limit),
        lead=lead,
        micro_batches=micro_batches,
        weights=weights,
        optimizer=optimizer,
        overlap=overlap,
        speeds=_speeds(speeds),
        links=boundary_links(profiled, stages, links, node_link, devices_per_node),
    )
    model = CostModel(profiled, stages, options)
    sha256 = hashlib.sha256(profile.read_bytes()).hexdigest()
    if pareto:
        plan_pareto(model, sha256, within=pareto_within, figure=figure, out=out, as_json=as_json)
        return
    plan = price_plan(model, chosen.cuts(model), planner, sha256)
    explanation = explain(model, plan.cuts)
    if out is not None:
        plan.write(out)
    if as_json:
        print_json(
            {
                **plan.model_dump(mode="json"),
                "explanation": asdict(explanation),
                "link": link_document(model.profile),
                "assumptions": assumptions(model.profile),
            }
        )
        return
    show_plan(plan, model, explanation)
    if out is not None:
        console().print(f"Written to {out}.")


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
