"""The options of `hpc-lpm plan`."""

from pathlib import Path
from typing import Annotated

import typer

from hpc_lpm.cli.profile_options import PROFILE_HELP
from hpc_lpm.planning.devices.asked import OBJECTIVES
from hpc_lpm.planning.planners.registry import DEFAULT_PLANNER
from hpc_lpm.prediction_rules import UPDATES_KEPT
from hpc_lpm.schedules.registry import DEFAULT_SCHEDULE, SCHEDULES

ProfilesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="PROFILE...",
        help=f"{PROFILE_HELP} With --devices one or more, of different micro-batches.",
    ),
]
StagesOption = Annotated[int | None, typer.Option(help="Stages to merge the layers into.")]
DevicesOption = Annotated[
    int | None,
    typer.Option(help="Devices to share among stages and their replicas, instead of --stages."),
]
GlobalBatchOption = Annotated[
    int | None, typer.Option(help="Samples of an optimizer step on all --devices.")
]
CutsOption = Annotated[
    str | None,
    typer.Option(
        metavar="C,C,...",
        help="Your own split instead of a planner's: positions (how many layers are in front of "
        "the cut), or names of layers or modules to cut behind.",
    ),
]
CutOnlyAtOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME,...",
        help="Cut behind these layers or modules alone: names, patterns in which * stands for "
        "anything up to a dot and ** for any parts, or type:CLASS.",
    ),
]
PlannerOption = Annotated[
    str | None,
    typer.Option(
        help="Planner, see `hpc-lpm planners`, or module:name of your own; by default "
        f"{DEFAULT_PLANNER}."
    ),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        help=f"Schedule to price the plan for: {', '.join(SCHEDULES.names())}, module:name of "
        "your own, or schedule:FILE.csv, a table of passes; by default "
        f"{DEFAULT_SCHEDULE}, and for time-to-target a flush is tried too."
    ),
]
ChunksOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Parts of the model on each stage's device, where the schedule lets you choose: "
        "--stages counts devices.",
    ),
]
ToleranceOption = Annotated[
    float, typer.Option(help="Share of the period to give up for fewer bytes.")
]
MemoryLimitOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory of a stage in bytes or as 4GiB: one size, or one for each stage, such as "
        "2GiB,4GiB.",
    ),
]
LeadOption = Annotated[
    int | None,
    typer.Option(
        help="Micro-batches that each stage runs ahead of the next, where the schedule takes a "
        "lead: by default 1, or searched with --devices."
    ),
]
MicroBatchesOption = Annotated[
    int | None,
    typer.Option(help="Micro-batches of an optimizer step: by default 4, or searched."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="What is done about weights that lag, where the schedule lets them: live (the "
        "default), replay, stash, or double-buffer (two versions at every stage); searched for "
        "time-to-target."
    ),
]
OptimizerOption = Annotated[
    str,
    typer.Option(
        help="Optimizer, as `hpc-lpm train` takes it; other stands for one with two copies of the "
        "weights."
    ),
]
PredictionRuleOption = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help=f"Rule by which lagged weights are predicted, for its memory: "
        f"{', '.join(UPDATES_KEPT)}.",
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Corrections for lagged weights, by which it is told what a step is worth and whose "
        "copies each device holds: none, auto, or the name of one.",
    ),
]
ObjectiveOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"With --devices, what to look for: {' or '.join(OBJECTIVES)}.",
    ),
]
EfficiencyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Your own measurements of what lags cost (CSV), instead of the toolkit's.",
    ),
]
OverlapOption = Annotated[
    bool | None,
    typer.Option(
        "--overlap/--no-overlap",
        help="Whether transfers hide behind compute; by default the profile says.",
    ),
]
SpeedsOption = Annotated[
    str | None, typer.Option(help="Speed of every stage's device, such as 1,1,0.5.")
]
LinksOption = Annotated[
    str | None,
    typer.Option(
        help="LATENCY:BANDWIDTH between stages, one for each boundary, separated by commas; or "
        "`measured`: those between the ranks that profiled."
    ),
]
NodeLinkOption = Annotated[
    str | None,
    typer.Option(help="LATENCY:BANDWIDTH between nodes; the profile's is that inside."),
]
DevicesPerNodeOption = Annotated[
    int | None, typer.Option(help="Neighbouring stages that share a node, with --node-link.")
]
ParetoOption = Annotated[
    bool, typer.Option("--pareto", help="Show all plans that no other plan beats.")
]
ParetoWithinOption = Annotated[
    float | None,
    typer.Option(
        help="With --pareto: the share by which periods may be above the least; by default any."
    ),
]
FigureOption = Annotated[
    Path | None, typer.Option(help="With --pareto: file to draw the plans into (SVG).")
]
OutOption = Annotated[Path | None, typer.Option(help="File to write the plan to (JSON).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")]
