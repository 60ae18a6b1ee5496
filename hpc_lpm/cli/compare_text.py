"""Prints a comparison of two campaigns for people, within 80 columns, in a pipe as well."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hpc_lpm.campaign.comparison.change import Change
from hpc_lpm.campaign.comparison.comparability import Difference
from hpc_lpm.campaign.comparison.compare import Absence, Comparison
from hpc_lpm.campaign.comparison.tables import RaceChanges, race_changes, trial_sentences
from hpc_lpm.campaign.metrics import MEMORY
from hpc_lpm.cli.output import console
from hpc_lpm.cli.plan_table import NARROW_COLUMNS, WIDE_COLUMNS

MOST_LINES = 6
"""How many differences of a kind, or missing trials, are listed before the rest is counted."""
_COLOURS = {"better": "green", "worse": "red", "inconclusive": "default"}


def show_comparison(comparison: Comparison, *, with_trials: bool) -> None:
    """Print what changed for each contestant, what the campaigns share, and what B expects."""
    output = console()
    width = min(output.width, WIDE_COLUMNS) if output.is_terminal else NARROW_COLUMNS
    say = _Speaker(output, width)
    say.line(f"A: {comparison.a.folder.root}")
    say.line(f"B: {comparison.b.folder.root}, as a ratio B / A; accuracy as B - A in points")
    races = race_changes(comparison)
    for race in races:
        say.table(race.title, _contestants(race))
    say.line(f"{comparison.chance_sentence()}.")
    say.line(
        "n: runs of A and of B, for accuracy the seeds that both have. Throughput also changes if "
        "the machine has become faster or slower; speedup over sequential training within the same "
        "campaign does not."
    )
    if with_trials:
        for race in races:
            if race.trials:
                say.table(f"{race.title}, trial by trial", _trials(race))
        say.line(
            "For a single run, the interval of throughput comes from its own steps and that of "
            "accuracy from the number of test samples; memory is measured once. None of them "
            "covers what differs from start to start: take the verdict on a change of the code "
            "from the contestants above."
        )
    elif comparison.trials:
        counts = "; ".join(trial_sentences(comparison))
        say.line(f"Trial by trial (--trials lists them): {counts}.")
    say.gap()
    say.line(f"{comparison.headline()}.", style="bold")
    for finding in comparison.findings():
        say.line(f"{finding}.")
    _show_comparability(say, comparison)
    _show_missing(say, "A", comparison.missing_in_a)
    _show_missing(say, "B", comparison.missing_in_b)
    for side, notes in (("A", comparison.notes_a), ("B", comparison.notes_b)):
        for note in notes:
            say.line(f"{side}: {note}.")
    for verdict in comparison.expectations:
        say.line(f"{verdict.sentence()}.", style="" if verdict.held else "red")


class _Speaker:
    """Prints lines and tables at a fixed width."""

    def __init__(self, output: Console, width: int) -> None:
        self._output = output
        self._width = width

    def gap(self) -> None:
        self._output.print()

    def line(self, sentence: str, style: str = "") -> None:
        self._output.print(Text(sentence, style=style), width=self._width)

    def table(self, title: str, table: Table) -> None:
        self.gap()
        self.line(title, style="bold")
        self._output.print(table, width=self._width)


def _show_comparability(say: _Speaker, comparison: Comparison) -> None:
    parts = comparison.comparability.parts()
    same = [name for name, differences in parts.items() if differences == []]
    if same:
        say.line(f"The same in A and B: {', '.join(same)}.")
    for name, differences in parts.items():
        if differences is None:
            say.line(f"Not recorded in both: {name}.")
        elif differences:
            say.line(f"Different {name}:")
            _list(say, [_short(difference) for difference in differences])


def _show_missing(say: _Speaker, side: str, missing: list[Absence]) -> None:
    if missing:
        say.line(f"Missing in {side}:")
        _list(say, [f"{absence.trial}: {absence.reason}" for absence in missing])


def _list(say: _Speaker, lines: Sequence[str]) -> None:
    for line in lines[:MOST_LINES]:
        say.line(f"  {line}")
    if len(lines) > MOST_LINES:
        say.line(f"  and {len(lines) - MOST_LINES} more (--json lists all)")


def _short(difference: Difference) -> str:
    # Of revisions and hashes the start is enough.
    a, b = (
        f"{text[:12]}..." if len(text) in {40, 64} else text
        for text in (difference.a, difference.b)
    )
    return f"{difference.what}: {a} in A, {b} in B"


def _contestants(race: RaceChanges) -> Table:
    table = _table()
    for name in ("contestant", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("B to A", "95 % interval", "n"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    before = ""
    for entry in race.contestants:
        change, label = entry.change, entry.who.label
        table.add_row(
            "" if label == before else label,
            change.quantity.title,
            change.text(),
            change.interval_text(),
            entry.count_text,
            _verdict(change),
        )
        before = label
    return table


def _trials(race: RaceChanges) -> Table:
    quantities = race.trial_quantities()
    table = _table(gap=0)
    table.add_column("contestant", overflow="fold")
    table.add_column("seed,\nrepeat")
    for quantity in quantities:
        unit = ",\npoints" if quantity.compared_as == "points" else ""
        table.add_column(f"{quantity.title}{unit}")
    table.add_column("weights")
    for entry in race.trials:
        table.add_row(
            entry.trial.label,
            f"{entry.trial.seed}, {entry.trial.repeat}",
            *(_two_lines(entry.change(quantity.name)) for quantity in quantities),
            "same" if entry.same_weights else "different",
        )
    return table


def _two_lines(change: Change | None) -> Text:
    if change is None:
        return Text("")
    if change.quantity == MEMORY:  # never has an interval, as the text below says
        return Text(change.number())
    if change.low is None:
        return Text(f"{change.number()}\n{change.note}")
    return Text.assemble(change.number(), " ", _verdict(change), f"\n{change.interval_text()}")


def _verdict(change: Change) -> Text:
    return Text(change.verdict, style=_COLOURS[change.verdict])


def _table(gap: int = 1) -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)
