"""Draws a plan over its profile: what each layer costs, and where the network is cut."""

import pandas as pd
from matplotlib.axes import Axes

from hpc_lpm.campaign.figures.style import (
    GRID,
    INK,
    MUTED,
    PHASE_COLOURS,
    STAGE_TINTS,
    DrawnFigure,
    new_figure,
    to_svg,
)
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import Profile

MILLISECONDS = 1e3
KIB = 1024
MOST_NAMED_LAYERS = 32


def draw_plan(name: str, profile: Profile, plan: Plan, users: str) -> DrawnFigure:
    """Draw one plan; `users` are the contestants that train with these cuts."""
    figure = new_figure(4.2)
    compute, outputs = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    positions = range(len(profile.layers))
    forward = [MILLISECONDS * layer.forward_seconds for layer in profile.layers]
    backward = [MILLISECONDS * layer.backward_seconds for layer in profile.layers]
    colours = PHASE_COLOURS
    compute.bar(positions, forward, width=0.8, color=colours["forward"], label="forward")
    compute.bar(
        positions, backward, width=0.8, bottom=forward, color=colours["backward"], label="backward"
    )
    crossing = [layer.output_bytes / KIB for layer in profile.layers]
    last_layers = [stage.stop - 1 for stage in plan.stages[:-1]]
    outputs.bar(
        positions,
        crossing,
        width=0.8,
        color=[PHASE_COLOURS["update"] if at in last_layers else "#c3cbd3" for at in positions],
    )
    # Head room above the bars for the names of the stages.
    compute.set_ylim(0, 1.25 * max(a + b for a, b in zip(forward, backward, strict=True)))
    outputs.set_ylim(0, 1.35 * max(crossing))
    _shade_stages(compute, outputs, plan)
    for at in last_layers:
        outputs.annotate(
            f"{crossing[at]:.0f} KiB",
            (at, crossing[at]),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            fontweight="bold",
            color=PHASE_COLOURS["update"],
        )
    compute.set_ylabel("ms per micro-batch")
    outputs.set_ylabel("output, KiB")
    outputs.set_xlim(-0.5, len(profile.layers) - 0.5)
    if len(profile.layers) <= MOST_NAMED_LAYERS:
        names = [layer.name for layer in profile.layers]
        outputs.set_xticks(positions, names, rotation=60, ha="right", fontsize=7)
    else:
        outputs.set_xlabel("layer", loc="left")
    compute.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    description = (
        f"Plan {plan.planner} for {users}: {len(profile.layers)} layers of {profile.model} in "
        f"{len(plan.stages)} stages"
    )
    return DrawnFigure(name, to_svg(figure, description), _table(profile, plan), description)


def _shade_stages(compute: Axes, outputs: Axes, plan: Plan) -> None:
    for number, stage in enumerate(plan.stages):
        tint = STAGE_TINTS[number % len(STAGE_TINTS)]
        for axes in (compute, outputs):
            axes.axvspan(stage.start - 0.5, stage.stop - 0.5, color=tint, linewidth=0, zorder=-2)
            axes.grid(axis="y", color=GRID)
            axes.spines["left"].set_visible(False)
            if number:
                axes.axvline(stage.start - 0.5, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        compute.annotate(
            f"stage {number}\n{MILLISECONDS * stage.compute_seconds:.1f} ms",
            ((stage.start + stage.stop - 1) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontweight="bold",
            fontsize=9,
            color=INK,
        )


def _table(profile: Profile, plan: Plan) -> pd.DataFrame:
    rows = []
    for number, stage in enumerate(plan.stages):
        for index in range(stage.start, stage.stop):
            layer = profile.layers[index].model_dump()
            rows.append({"stage": number, "layer": index} | layer)
    return pd.DataFrame(rows)
