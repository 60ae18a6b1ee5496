"""Print a ranking of strategies: a table, why the first is first, and who is left out."""

from rich import box
from rich.table import Table
from rich.text import Text

from hpc_lpm.advice.ranking import Ranked, Ranking
from hpc_lpm.cli.output import console
from hpc_lpm.cli.plan_table import NARROW_COLUMNS
from hpc_lpm.cli.profile_options import assumptions, link_document, link_sentence, link_words
from hpc_lpm.schedules.base import CHUNKS, LEAD

_COLUMNS = (
    "strategy",
    "stages x\nreplicas",
    "micro-\nbatches",
    "lead,\nchunks",
    "samples/s",
    "memory\nMiB",
    "sent KiB\na sample",
    "lag",
    "step\nworth",
)


def show_advice(ranking: Ranking, reasons: list[str]) -> None:
    """Print the strategies in order, and the sentences below them, in 80 columns."""
    case, output = ranking.case, console()
    profile = case.profiles[0]
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name in _COLUMNS:
        first = name == _COLUMNS[0]
        table.add_column(name, justify="left" if first else "right", no_wrap=first)
    for each in ranking.ranked:
        table.add_row(*(Text(cell) for cell in _row(each)))
    title = f"{ranking.best.settings.model} on {case.devices} devices, {case.batch_size} samples "
    output.print(Text(f"{title}a step, {case.options.optimizer}", style="bold"))
    output.print()
    output.print(table, width=NARROW_COLUMNS)
    output.print()
    for sentence in reasons:
        output.print(Text(sentence), width=NARROW_COLUMNS)
    if any(each.forecast.at_best for each in ranking.ranked):
        output.print(
            Text("Rates with < are bounds: nothing is measured of what threads lose."),
            width=NARROW_COLUMNS,
        )
    link = f"Link: {link_sentence(profile)}"
    if case.nodes is not None:
        link += f"; between nodes of {case.nodes.devices} devices {link_words(case.nodes.link)}"
    output.print(Text(f"{link}."), width=NARROW_COLUMNS)
    for sentence in assumptions(profile):
        output.print(Text(f"Assumed: {sentence}."), width=NARROW_COLUMNS)
    if ranking.left_out:
        output.print()
        output.print("Left out:")
    for left in ranking.left_out:
        output.print(Text(f"  {left.name}: {left.reason}."), width=NARROW_COLUMNS)


def _row(each: Ranked) -> list[str]:
    forecast = each.forecast
    worth = forecast.expected.worth.value
    bound = "<" if forecast.at_best else ""
    return [
        each.name,
        f"{forecast.stages} x {forecast.replicas}",
        str(forecast.micro_batches),
        str(forecast.options.get(LEAD, forecast.options.get(CHUNKS, "-"))),
        f"{bound}{forecast.samples_per_second:.1f}",
        f"{forecast.memory_bytes / 2**20:.2f}",
        f"{forecast.sent_bytes / forecast.samples / 1024:.1f}",
        f"{float(forecast.lag.mean):.2f}",
        "unknown" if worth is None else f"{worth:.2f}",
    ]


def advice_document(ranking: Ranking, reasons: list[str]) -> dict[str, object]:
    """Return the ranking for `--json`: all strategies, best first, and those left out."""
    case = ranking.case
    return {
        "model": ranking.best.settings.model,
        "dataset": ranking.best.settings.dataset,
        "devices": case.devices,
        "batch_size": case.batch_size,
        "optimizer": case.options.optimizer,
        "memory_limit_bytes": case.memory_limit,
        "link": link_document(case.profiles[0]),
        "node_link": None if case.nodes is None else case.nodes.link.model_dump(mode="json"),
        "devices_per_node": None if case.nodes is None else case.nodes.devices,
        "strategies": [_document(each) for each in ranking.ranked],
        "left_out": [{"strategy": left.name, "reason": left.reason} for left in ranking.left_out],
        "why": reasons[0],
        "what_changes_it": reasons[1:],
    }


def _document(each: Ranked) -> dict[str, object]:
    forecast = each.forecast
    return {
        "strategy": each.name,
        "stages": forecast.stages,
        "replicas": forecast.replicas,
        "micro_batches": forecast.micro_batches,
        "micro_batch": forecast.micro_batch,
        "options": dict(forecast.options),
        "cuts": list(forecast.cuts),
        "step_seconds": float(forecast.step_seconds),
        "at_best": forecast.at_best,
        "bounded_by": forecast.bound,
        "samples_per_second": forecast.samples_per_second,
        "memory_bytes": forecast.memory_bytes,
        "sent_bytes_a_step": forecast.sent_bytes,
        "lag_mean": float(forecast.lag.mean),
        "lag_largest": forecast.lag.largest,
        "step_worth": forecast.expected.worth.model_dump(mode="json"),
        "effective_samples_per_second": forecast.effective_rate,
    }
