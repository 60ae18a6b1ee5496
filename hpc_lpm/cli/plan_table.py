"""Print a plan for people: a table of its stages, its bottleneck and how far it could go.

It fits into 80 columns, in a pipe as well, and takes more only from a terminal that has them.
"""

import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from hpc_lpm.cli.output import console
from hpc_lpm.cli.profile_options import assumptions, link_sentence
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.explain import ExplainedStage, Explanation
from hpc_lpm.planning.memory import memory_assumptions
from hpc_lpm.planning.own_split import OWN
from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.planning.worth.expected import StepWorth
from hpc_lpm.schedules.base import LEAD, WEIGHTS

BAR_CHARACTERS = 10
NARROW_COLUMNS, WIDE_COLUMNS = 80, 120
_COLUMN_GAP = 2
_FEWEST_NAME_CHARACTERS = 12
_WORD = re.compile(r"([^\W\d])[^\W\d]+")
_DIGIT = re.compile(r"\d")

Unit = tuple[float, str]
_SECONDS: Sequence[Unit] = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_BYTES: Sequence[Unit] = (
    (2.0**40, "TiB"),
    (2.0**30, "GiB"),
    (2.0**20, "MiB"),
    (2.0**10, "KiB"),
    (1.0, "B"),
)


def show_plan(plan: Plan, model: CostModel, explanation: Explanation) -> None:
    """Print the table of `plan` and its explanation on stdout."""
    output = console()
    width = min(output.width, WIDE_COLUMNS) if output.is_terminal else NARROW_COLUMNS
    many = "1 stage" if len(plan.stages) == 1 else f"{len(plan.stages)} stages"
    if plan.chunks > 1:
        many = f"{many} on {plan.devices} {'devices' if plan.devices > 1 else 'device'}"
    who = "cut as given" if plan.planner == OWN else f"by planner {plan.planner}"
    heading = f"{plan.model} in {many} {who}"
    output.print(Text(heading, style="bold"), width=width)
    output.print()
    table = _stages(plan, model, explanation.stages, width)
    output.print(table, width=width, crop=False)
    output.print()
    output.print(_facts(plan, model, explanation), width=width)


def _stages(plan: Plan, model: CostModel, explained: Sequence[ExplainedStage], width: int) -> Table:
    both = list(zip(plan.stages, explained, strict=True))
    seconds = _unit([max(s.compute_seconds, e.transfer_seconds) for s, e in both], _SECONDS)
    size = _unit([stage.memory_bytes for stage in plan.stages], _BYTES)
    columns = {
        "stage": [str(number) for number in range(len(both))],
        "device": [str(model.placement.device(number)) for number in range(len(both))],
        f"compute\n{seconds[1]}": [f"{s.compute_seconds / seconds[0]:.3f}" for s, _ in both],
        f"transfer\n{seconds[1]}": [
            *(f"{e.transfer_seconds / seconds[0]:.3f}" for e in explained[:-1]),
            "-",
        ],
        f"memory\n{size[1]}": [f"{s.memory_bytes / size[0]:.2f}" for s, _ in both],
        f"limit\n{size[1]}": [_limit(e, size) for e in explained],
        "load": [_bar(e.load) for e in explained],
    }
    if plan.chunks == 1:
        del columns["device"]
    if all(e.memory_limit_bytes is None for e in explained):
        del columns[f"limit\n{size[1]}"]
    taken = sum(
        max(len(line) for cell in (name, *cells) for line in cell.split("\n")) + _COLUMN_GAP
        for name, cells in columns.items()
    )
    characters = max(width - taken, _FEWEST_NAME_CHARACTERS)
    names = [_layers(s, e, characters) for s, e in both]
    columns = {"stage": columns["stage"], "layers": names, **columns}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(
            name, justify="left" if name in {"layers", "load"} else "right", no_wrap=True
        )
    if width < taken + characters:
        table.width = taken + characters  # a line that wraps tells more than one that is cut
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _facts(plan: Plan, model: CostModel, explanation: Explanation) -> Table:
    bound = (
        f"the coarsest layer, {explanation.coarsest_layer}"
        if explanation.coarsest_layer_bounds
        else "the devices together"
    )
    facts = [
        ("period", f"{_time(plan.period_seconds)} a micro-batch, set by {explanation.bottleneck}"),
        (
            "speedup",
            f"{explanation.speedup:.2f}x over one device, at most "
            f"{explanation.speedup_bound:.2f}x by {bound}",
        ),
        ("sent", f"{_amount(plan.boundary_bytes)} over all boundaries, one way per micro-batch"),
        ("schedule", _schedule(model)),
        ("lag", _lag(plan)),
        *(("step worth", sentence) for sentence in _step_worth(plan)),
        ("link", link_sentence(model.profile, model.options.links)),
        ("load", _meaning_of_load(model)),
        *(("assumed", sentence) for sentence in plan_assumptions(model)),
        *(("hint", sentence) for sentence in explanation.hints),
        *(("not covered", sentence) for sentence in explanation.not_covered),
    ]
    table = Table.grid(padding=(0, 2, 0, 0))
    for label, sentence in facts:
        table.add_row(Text(label, style="bold"), Text(sentence))
    return table


def plan_assumptions(model: CostModel) -> list[str]:
    """Return the sentences that say what the numbers of a plan assume."""
    return [
        *assumptions(model.profile),
        *memory_assumptions(model.profile, model.options.optimizer),
        *_halves(model),
    ]


def _halves(model: CostModel) -> list[str]:
    known = all(layer.weight_gradient_seconds is not None for layer in model.profile.layers)
    if known or not model.schedule.splits_backward:
        return []
    return [
        "no part of a backward can wait but on the first stage: the profile does not tell the "
        "gradients of the weights apart, one that is made anew does"
    ]


def _schedule(model: CostModel) -> str:
    options, own = model.options, model.schedule.own_options
    words = [model.schedule.name, f"{options.micro_batches} micro-batches per step"]
    if model.placement.chunks > 1:
        words.append(f"{model.placement.chunks} chunks on each device")
    if LEAD in own:
        words.append(f"lead {options.lead}")
    if WEIGHTS in own:
        words.append(f"weights {options.weights}")
    return ", ".join(words)


def _lag(plan: Plan) -> str:
    if not plan.lag_largest:
        return "none: every backward sees the weights of its forward"
    return (
        f"{plan.lag_mean:.2f} updates on average over the stages, at most {plan.lag_largest}, "
        "between a forward and its backward"
    )


def _step_worth(plan: Plan) -> Iterator[str]:
    """Yield what a step is worth, nothing where nobody asked for it."""
    worth = plan.step_worth
    if worth is None:
        return
    if worth.value is None:
        yield f"unknown: {worth.reason}"
    else:
        yield f"{worth_text(worth)} of a synchronous step ({worth.reason})"


def worth_text(worth: StepWorth) -> str:
    """Return what a step is worth with its interval, such as `0.80 (0.75 to 0.85)`."""
    if worth.value is None:
        return "unknown"
    if worth.low is None or worth.high is None or worth.low == worth.high:
        return f"{worth.value:.2f}"
    return f"{worth.value:.2f} ({worth.low:.2f} to {worth.high:.2f})"


def _meaning_of_load(model: CostModel) -> str:
    if model.overlap:
        return "share of the period in which a stage computes (transfers overlap)"
    return "share of the period in which a stage computes, sends or receives"


def _layers(stage: StagePlan, explained: ExplainedStage, characters: int) -> str:
    first, last = explained.first_layer, explained.last_layer
    if stage.stop == stage.start + 1:
        return _shortened(first, characters)
    joint = " - "
    room = characters - len(joint)
    if len(first) + len(last) > room:
        # What one of them leaves free is the other's.
        half = room // 2
        first = _shortened(first, max(half, room - len(last)))
        last = _shortened(last, room - len(first))
    return f"{first}{joint}{last}"


def _shortened(name: str, characters: int) -> str:
    """Shorten a long name, `encoder.layers.12.query`, to `e.l.12.query`, `~12.query`, `~12~uery`.

    Numbers stay as long as they can, for they tell layers from one another; of `node12 Conv2d`,
    a name and what it is, the name does.
    """
    parts = name.split(".")
    for place in range(len(parts) - 1):
        if len(".".join(parts)) <= characters:
            break
        parts[place] = _WORD.sub(r"\1", parts[place])
    shorter = ".".join(parts)
    if len(shorter) <= characters:
        return shorter
    numbered = next((place for place, part in enumerate(parts) if _DIGIT.search(part)), 0)
    if numbered:
        shorter = f"~{'.'.join(parts[numbered:])}"
    if len(shorter) <= characters:
        return shorter
    tail = 0 if " " in shorter else (characters - 1) // 2
    return f"{shorter[: characters - 1 - tail]}~{shorter[len(shorter) - tail :]}"


def _limit(explained: ExplainedStage, size: Unit) -> str:
    limit = explained.memory_limit_bytes
    return "none" if limit is None else f"{limit / size[0]:.2f}"


def _bar(load: float) -> str:
    filled = min(BAR_CHARACTERS, round(load * BAR_CHARACTERS))
    return f"{'#' * filled}{'.' * (BAR_CHARACTERS - filled)} {load:4.0%}"


def _unit(values: Sequence[float], units: Sequence[Unit]) -> Unit:
    """Return the largest unit that the largest value reaches, or else the smallest unit."""
    largest = max(values)
    return next((unit for unit in units if largest >= unit[0]), units[-1])


def _time(seconds: float) -> str:
    factor, name = _unit([seconds], _SECONDS)
    return f"{seconds / factor:.3f} {name}"


def _amount(size_bytes: int) -> str:
    factor, name = _unit([size_bytes], _BYTES)
    return f"{size_bytes} B" if factor == 1 else f"{size_bytes / factor:.1f} {name}"
