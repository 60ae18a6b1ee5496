"""`hpc-lpm plan --pareto`: the front of period, boundary bytes and memory, and a point on it."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from hpc_lpm.cli.output import console, print_json, print_table
from hpc_lpm.cli.plan_table import plan_assumptions
from hpc_lpm.cli.profile_options import link_document, link_sentence
from hpc_lpm.errors import InputError
from hpc_lpm.files import write_text_atomically
from hpc_lpm.planning.blocks import Blocks
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import not_covered
from hpc_lpm.planning.pareto.front import ParetoFront, pareto_front
from hpc_lpm.planning.planners.registry import DEFAULT_PLANNER
from hpc_lpm.planning.pricing import price_plan

MOST_ROWS = 20
PLANNER = "pareto"
"""The planner's name in the plan file. Among plans with the same bytes and memory the front has the
one of the shortest period, where the default planner takes the smallest cuts."""


def check_pareto_options(
    *,
    pareto: bool,
    planner: str | None,
    cuts: str | None,
    within: float | None,
    figure: Path | None,
) -> None:
    """Check the options that go with `--pareto` and those that do not.

    Raises:
        InputError: if one is given without `--pareto`, the planner is another than `lpm`, the cuts
            are given, or the figure is no SVG.
    """
    if not pareto:
        for name, value in (("--pareto-within", within), ("--figure", figure)):
            if value is not None:
                raise InputError(
                    f"{name} is {value} without --pareto: add --pareto or leave it out."
                )
    elif cuts is not None:
        raise InputError(
            "--pareto is given with --cuts, which leaves nothing to search: leave one of the two "
            "out."
        )
    elif planner not in {None, DEFAULT_PLANNER}:
        raise InputError(
            f"--planner is {planner!r} with --pareto, which chooses as {DEFAULT_PLANNER!r} does: "
            "leave one of the two out."
        )
    if figure is not None and figure.suffix != ".svg":
        raise InputError(f"--figure is {str(figure)!r}, accepted is a file that ends in .svg.")


def check_stages_given(stages: int | None) -> None:
    """Refuse a front without a number of stages.

    Raises:
        InputError: if it is not given.
    """
    if stages is None:
        raise InputError(
            "--pareto is given without --stages, but a front belongs to one number of stages: give "
            "--stages."
        )


def check_one_stage_each(model: CostModel) -> None:
    """Refuse a front where devices hold several stages, whose times and bytes add up.

    Raises:
        InputError: if they do.
    """
    if model.placement.chunks > 1:
        raise InputError(
            f"--pareto is given with --schedule {model.schedule.name}, under which each device "
            f"holds {model.placement.chunks} stages, but a front weighs stages that have a device "
            "each: leave --pareto out, or use another schedule."
        )


def plan_pareto(
    model: CostModel,
    blocks: Blocks,
    profile_sha256: str,
    *,
    within: float | None,
    figure: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find the front, print it, and write the figure and the plan of the chosen point.

    The front is searched in the profile merged into `blocks`; `model` is of the profile itself.

    Raises:
        InputError: as `pareto_front`.
    """
    front = pareto_front(CostModel(blocks.merged, model.stages, model.options), within)
    points = (replace(point, cuts=blocks.in_layers(point.cuts)) for point in front.points)
    front = replace(front, points=tuple(points))
    if out is not None:
        cuts = front.points[front.chosen].cuts
        price_plan(model, cuts, PLANNER, profile_sha256).write(out)
    if figure is not None:
        _draw(model, front, figure)
    if as_json:
        print_json(_document(model, front, profile_sha256))
        return
    _show(model, front)
    for path in (out, figure):
        if path is not None:
            console().print(f"Written to {path}.", soft_wrap=True)


def _draw(model: CostModel, front: ParetoFront, path: Path) -> None:
    # Imported here because matplotlib and pandas take a second that no other plan should wait for.
    from hpc_lpm.campaign.figures.pareto import draw_pareto
    from hpc_lpm.campaign.figures.style import figure_style

    with figure_style():
        write_text_atomically(path, draw_pareto(model, front).svg)


def _document(model: CostModel, front: ParetoFront, profile_sha256: str) -> dict[str, object]:
    return {
        "model": model.profile.model,
        "stages": model.stages,
        "profile_sha256": profile_sha256,
        "options": {**model.options.model_dump(mode="json"), "overlap": model.overlap},
        "link": link_document(model.profile),
        "assumptions": plan_assumptions(model),
        "not_covered": not_covered(model),
        "chosen": front.chosen,
        "points": [
            {
                "period_seconds": float(point.period),
                "boundary_bytes": point.boundary_bytes,
                "memory_bytes": point.memory_bytes,
                "cuts": point.cuts,
            }
            for point in front.points
        ],
    }


def _show(model: CostModel, front: ParetoFront) -> None:
    points = front.points
    shown = _rows_shown(len(points), front.chosen)
    least = points[0].period
    rows = [
        [
            "chosen" if number == front.chosen else "",
            f"{float(points[number].period) * 1e3:.3f}",
            f"{_excess(points[number].period, least):.1%}",
            f"{points[number].boundary_bytes / 1024:.1f}",
            f"{points[number].memory_bytes / 2**20:.2f}",
            " ".join(str(cut) for cut in points[number].cuts),
        ]
        for number in shown
    ]
    columns = ["", "period ms", "above least", "send KiB", "memory MiB", "cuts"]
    count = f"{len(points)} plans" if len(points) > 1 else "1 plan"
    title = f"Pareto front of {model.profile.model} in {model.stages} stages: {count}"
    print_table(title, columns, rows)
    if len(shown) < len(points):
        console().print(f"{len(shown)} of the {len(points)} plans are shown; --json prints all.")
    console().print(
        f"Chosen with --tolerance {model.options.tolerance:g}: the fewest bytes, then the least "
        "memory of the fullest stage, with a period of at most "
        f"{float((1 + Fraction(model.options.tolerance)) * least) * 1e3:.3f} ms."
    )
    console().print(f"Link: {link_sentence(model.profile, model.options.links)}.")
    for sentence in plan_assumptions(model):
        console().print(f"Assumed: {sentence}.")
    for sentence in not_covered(model):
        console().print(f"Not covered: {sentence}")


def _rows_shown(points: int, chosen: int) -> list[int]:
    """Return evenly spaced numbers of points, the first, the last and the chosen one among them."""
    if points <= MOST_ROWS:
        return list(range(points))
    spaced = {position * (points - 1) // (MOST_ROWS - 2) for position in range(MOST_ROWS - 1)}
    return sorted({*spaced, chosen})


def _excess(period: Fraction, least: Fraction) -> float:
    return float(period / least - 1) if least else 0.0
