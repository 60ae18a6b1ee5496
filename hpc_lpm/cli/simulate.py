"""`hpc-lpm simulate`: predict what a plan does under a schedule."""

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
from hpc_lpm.planning.disturbances import Disturbances
from hpc_lpm.planning.plan import Plan
from hpc_lpm.planning.plan_checks import check_plan_of, check_prices, check_schedule_is_known
from hpc_lpm.planning.prediction import MOST_DRAWN, Prediction, predict
from hpc_lpm.planning.repricing import PlanUse, plan_for
from hpc_lpm.profile_file import Profile
from hpc_lpm.profile_formats.read import latency_of, read_profile, with_link
from hpc_lpm.schedules.drawing import LEGEND, draw_timelines
from hpc_lpm.schedules.registry import SCHEDULES

TIMELINE_COLUMNS = 120
TIMELINE_PERIODS = 12
"""The length of the drawn timeline: the warm-up and some steady state."""


@app.command("simulate")
def simulate_command(
    profile: Annotated[Path, typer.Argument(help=PROFILE_HELP)],
    *,
    plan: Annotated[Path, typer.Option(help="Plan, written by `hpc-lpm plan`.")],
    strategy: Annotated[
        str | None,
        typer.Option(
            help=f"Schedule: {', '.join(SCHEDULES.names())}, module:name of your own, or "
            "schedule:FILE.csv, a table of passes; by default the plan's."
        ),
    ] = None,
    micro_batches: Annotated[
        int | None, typer.Option(help="Micro-batches of an optimizer step, by default the plan's.")
    ] = None,
    lead: Annotated[
        int | None,
        typer.Option(
            help="Micro-batches that each stage runs ahead of the next, by default the plan's."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="What is done about weights that lag, by default the plan's: live, replay, "
            "stash or double-buffer."
        ),
    ] = None,
    latency: LatencyOption = None,
    bandwidth: BandwidthOption = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimizer steps, by default enough for a steady state."),
    ] = None,
    jitter: Annotated[
        float,
        typer.Option(
            metavar="SIGMA",
            help="Let every pass vary: the standard deviation of the logarithm of its time.",
        ),
    ] = 0.0,
    stalls: Annotated[
        str | None,
        typer.Option(metavar="SHARE:FACTOR", help="Let a share of the passes take longer."),
    ] = None,
    slow_stage: Annotated[
        str | None,
        typer.Option(metavar="STAGE:FACTOR,...", help="Let the passes of stages take longer."),
    ] = None,
    slow_link: Annotated[
        str | None,
        typer.Option(
            metavar="BOUNDARY:FACTOR,...",
            help="Let messages take longer; boundary 0 is the one behind stage 0.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which passes vary by how much.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict period, idle share, memory and the timeline of a plan."""
    merged = Plan.read(plan)
    read = read_profile(profile)
    check_plan_of(read, merged)
    check_schedule_is_known(merged, plan, strategy)
    check_prices(merged, plan, read, profile)
    profiled = with_link(read, latency_of("--latency", latency), bandwidth)
    use = plan_for(
        merged,
        plan,
        profile=profiled,
        schedule=strategy,
        micro_batches=micro_batches,
        lead=lead,
        weights=weights,
    )
    schedule = use.options.scheduled
    schedule.check_options(lead=lead, weights=weights)
    disturbances = Disturbances.of(
        len(merged.stages),
        jitter=jitter,
        stalls=stalls,
        slow_stage=slow_stage,
        slow_link=slow_link,
        seed=seed,
    )
    prediction = predict(profiled, merged, use.options, steps=steps, disturbances=disturbances)
    if as_json:
        document = _document(prediction, use)
        document |= {"link": link_document(profiled), "assumptions": assumptions(profiled)}
        print_json(document)
        return
    _show(prediction, profiled, merged, use)


def _document(prediction: Prediction, use: PlanUse) -> dict[str, object]:
    simulation = prediction.simulation
    return {
        "strategy": use.options.schedule,
        "options": use.options.model_dump(mode="json"),
        "notice": use.notice,
        "steps": prediction.steps,
        "period_seconds": simulation.period_seconds,
        "samples_per_second": prediction.samples_per_second,
        "makespan_seconds": simulation.makespan_seconds,
        "idle_share": simulation.idle_share,
        "overall_idle_share": simulation.overall_idle_share,
        "peak_in_flight": simulation.peak_in_flight,
        "memory_bytes": prediction.memory_bytes,
        "timeline": None
        if prediction.timelines is None
        else [
            [
                {
                    "instruction": str(timed.instruction),
                    "start_seconds": timed.start_seconds,
                    "end_seconds": timed.end_seconds,
                }
                for timed in timeline
            ]
            for timeline in prediction.timelines
        ],
    }


def _show(prediction: Prediction, profile: Profile, merged: Plan, use: PlanUse) -> None:
    simulation, options = prediction.simulation, use.options
    placement = options.scheduled.placement(len(merged.stages))
    in_flight = placement.on_devices(simulation.peak_in_flight)
    if use.notice is not None:
        console().print(use.notice[0].upper() + use.notice[1:])
    print_table(
        f"{merged.model}, {options.schedule}, {options.micro_batches} micro-batches per step",
        [
            "device" if merged.chunks > 1 else "stage",
            "idle in steady state",
            "idle over all",
            "in flight",
            "memory MiB",
        ],
        [
            [str(stage), f"{idle:.1%}", f"{overall:.1%}", f"{held:g}", f"{memory / 2**20:.2f}"]
            for stage, (idle, overall, held, memory) in enumerate(
                zip(
                    simulation.idle_share,
                    simulation.overall_idle_share,
                    in_flight,
                    prediction.memory_bytes,
                    strict=True,
                )
            )
        ],
    )
    console().print(
        f"Period {simulation.period_seconds * 1e3:.3f} ms a micro-batch, "
        f"{prediction.samples_per_second:.1f} samples per second in steady state; "
        f"{prediction.steps} steps take {simulation.makespan_seconds:.3f} s."
    )
    console().print(f"Link: {link_sentence(profile, options.links)}.")
    for sentence in assumptions(profile):
        console().print(f"Assumed: {sentence}.")
    if prediction.timelines is None:
        console().print(
            f"The timeline is left out: one is drawn of up to {MOST_DRAWN:,} passes, and without "
            "replicas that vary."
        )
        return
    end = min(
        simulation.makespan_seconds,
        TIMELINE_PERIODS * simulation.period_seconds,
    )
    for stage, row in enumerate(draw_timelines(prediction.timelines, end, TIMELINE_COLUMNS)):
        console().print(f"{'device' if merged.chunks > 1 else 'stage'} {stage:<3} {row}")
    console().print(LEGEND)
