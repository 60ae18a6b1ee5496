"""`hpc-lpm plan`: which layers each stage gets, and what that is predicted to cost."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.cli.plan_pareto import check_pareto_options, plan_pareto
from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import Explanation, explain
from hpc_lpm.planning.make import price_plan
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.registry import planner_named
from hpc_lpm.profiling.profile import Profile

BAR_CHARACTERS = 20


@app.command("plan")
def plan_command(
    profile: Annotated[Path, typer.Argument(help="Profile, written by `hpc-lpm profile`.")],
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
    options = PlanOptions.checked(
        tolerance=tolerance,
        memory_limit=_memory_limit(memory_limit),
        lead=lead,
        micro_batches=micro_batches,
        weights=weights,
        optimizer=optimizer,
        overlap=overlap,
        speeds=_speeds(speeds),
    )
    model = CostModel(Profile.read(profile), stages, options)
    sha256 = hashlib.sha256(profile.read_bytes()).hexdigest()
    if pareto:
        plan_pareto(model, sha256, within=pareto_within, figure=figure, out=out, as_json=as_json)
        return
    plan = price_plan(model, chosen.cuts(model), planner, sha256)
    explanation = explain(model, plan.cuts)
    if out is not None:
        plan.write(out)
    if as_json:
        print_json({**plan.model_dump(mode="json"), "explanation": asdict(explanation)})
        return
    _show(plan, model, explanation)
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


def _show(plan: Plan, model: CostModel, explanation: Explanation) -> None:
    names = [layer.name for layer in model.profile.layers]
    rows = []
    for number, stage in enumerate(plan.stages):
        limit = model.factors[number].memory_limit_bytes
        transfer = float(model.transfer_seconds(stage.stop))
        load = stage.compute_seconds / plan.period_seconds if plan.period_seconds else 0.0
        rows.append(
            [
                str(number),
                str(stage.stop - stage.start),
                _layer_range(names, stage.start, stage.stop),
                f"{stage.compute_seconds * 1e3:.3f}",
                f"{stage.send_bytes / 1024:.1f}",
                f"{transfer * 1e3:.3f}",
                f"{stage.memory_bytes / 2**20:.2f}",
                "none" if limit is None else f"{limit / 2**20:.2f}",
                _bar(load),
            ]
        )
    columns = ["stage", "layers", "from - to", "compute ms", "send KiB", "transfer ms"]
    columns += ["memory MiB", "limit MiB", "load"]
    title = f"{plan.model} in {len(plan.stages)} stages by planner {plan.planner}"
    print_table(title, columns, rows)
    bound = (
        f"the coarsest layer, {explanation.coarsest_layer}; split it to go further"
        if explanation.coarsest_layer_bounds
        else "the devices together"
    )
    console().print(
        f"Period {plan.period_seconds * 1e3:.3f} ms a micro-batch, bounded by "
        f"{explanation.bottleneck}; {plan.boundary_bytes / 1024:.1f} KiB cross the boundaries.\n"
        f"Predicted speedup over one device {explanation.speedup:.2f}x, at most "
        f"{explanation.speedup_bound:.2f}x by {bound}."
    )


def _layer_range(names: list[str], start: int, stop: int) -> str:
    return names[start] if stop == start + 1 else f"{names[start]} - {names[stop - 1]}"


def _bar(load: float) -> str:
    filled = min(BAR_CHARACTERS, round(load * BAR_CHARACTERS))
    return f"{'#' * filled}{'.' * (BAR_CHARACTERS - filled)} {load:.0%}"
