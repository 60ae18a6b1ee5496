"""A plan for people: a table of its stages, what bounds it and how far it could go."""

from hpc_lpm.cli.output import console, print_table
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import Explanation
from hpc_lpm.planning.plan import Plan

BAR_CHARACTERS = 20


def show_plan(plan: Plan, model: CostModel, explanation: Explanation) -> None:
    """Print the table of `plan` and its explanation on stdout."""
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
