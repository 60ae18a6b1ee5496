"""`hpc-lpm simulate`: what a plan is predicted to do under a schedule."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.cli.profile_options import (
    PROFILE_HELP,
    BandwidthOption,
    LatencyOption,
    assumptions,
    link_document,
    link_sentence,
)
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.prediction import Prediction, predict
from hpc_lpm.profile import Link, Profile
from hpc_lpm.profiling.read import read_profile, with_link
from hpc_lpm.schedules.drawing import LEGEND, draw_timelines
from hpc_lpm.schedules.registry import schedule_named

TIMELINE_COLUMNS = 120
TIMELINE_PERIODS = 12
"""How much of the timeline is drawn: warm-up and then some steady state."""


@app.command("simulate")
def simulate_command(
    profile: Annotated[Path, typer.Argument(help=PROFILE_HELP)],
    *,
    plan: Annotated[Path, typer.Option(help="Plan, written by `hpc-lpm plan`.")],
    strategy: Annotated[str, typer.Option(help="fbp, 1f1b, gpipe or naive.")] = "fbp",
    micro_batches: Annotated[
        int | None, typer.Option(help="Micro-batches of an optimizer step, by default the plan's.")
    ] = None,
    lead: Annotated[
        int | None, typer.Option(help="Micro-batches of lead a stage, by default the plan's.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="replay, live or stash, by default the plan's.")
    ] = None,
    latency: LatencyOption = None,
    bandwidth: BandwidthOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict period, idle share, memory and the timeline of a plan."""
    schedule = schedule_named(strategy)
    merged = Plan.read(plan)
    asked = {"micro_batches": micro_batches, "lead": lead, "weights": weights}
    given = {name: value for name, value in asked.items() if value is not None}
    options = PlanOptions.checked(**{**merged.options, **given})
    profiled = with_link(read_profile(profile), latency, bandwidth)
    prediction = predict(profiled, merged, schedule, options)
    if as_json:
        document = _document(prediction, strategy, options.model_dump(mode="json"))
        document |= {"link": link_document(profiled), "assumptions": assumptions(profiled)}
        print_json(document)
        return
    _show(
        prediction,
        profiled,
        options.links,
        f"{merged.model}, {strategy}, {options.micro_batches} micro-batches a step",
    )


def _document(
    prediction: Prediction, strategy: str, options: dict[str, object]
) -> dict[str, object]:
    simulation = prediction.simulation
    return {
        "strategy": strategy,
        "options": options,
        "steps": prediction.steps,
        "period_seconds": simulation.period_seconds,
        "samples_per_second": prediction.samples_per_second,
        "makespan_seconds": simulation.makespan_seconds,
        "idle_share": simulation.idle_share,
        "overall_idle_share": simulation.overall_idle_share,
        "peak_in_flight": simulation.peak_in_flight,
        "memory_bytes": prediction.memory_bytes,
        "timeline": [
            [
                {
                    "instruction": str(timed.instruction),
                    "start_seconds": timed.start_seconds,
                    "end_seconds": timed.end_seconds,
                }
                for timed in timeline
            ]
            for timeline in simulation.timelines
        ],
    }


def _show(
    prediction: Prediction, profile: Profile, links: Sequence[Link] | None, title: str
) -> None:
    simulation = prediction.simulation
    print_table(
        title,
        ["stage", "idle in steady state", "idle over all", "in flight", "memory MiB"],
        [
            [str(stage), f"{idle:.1%}", f"{overall:.1%}", str(held), f"{memory / 2**20:.2f}"]
            for stage, (idle, overall, held, memory) in enumerate(
                zip(
                    simulation.idle_share,
                    simulation.overall_idle_share,
                    simulation.peak_in_flight,
                    prediction.memory_bytes,
                    strict=True,
                )
            )
        ],
    )
    console().print(
        f"Period {simulation.period_seconds * 1e3:.3f} ms a micro-batch, "
        f"{prediction.samples_per_second:.1f} samples a second in steady state; "
        f"{prediction.steps} steps take {simulation.makespan_seconds:.3f} s."
    )
    console().print(f"Link: {link_sentence(profile, links)}.", markup=False)
    for sentence in assumptions(profile):
        console().print(f"Assumed: {sentence}.", markup=False)
    end = min(
        simulation.makespan_seconds,
        TIMELINE_PERIODS * simulation.period_seconds,
    )
    for stage, row in enumerate(draw_timelines(simulation.timelines, end, TIMELINE_COLUMNS)):
        console().print(f"stage {stage:<3} {row}", markup=False)
    console().print(LEGEND)
