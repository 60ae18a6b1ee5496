"""Prints the results of commands: tables for people, JSON for scripts."""

import json

from rich.console import Console
from rich.table import Table

from hpc_lpm.ranks import started_by_launcher


def print_json(document: object) -> None:
    """Print a JSON document and nothing else on stdout, so that scripts can parse it."""
    print(json.dumps(document, indent=2))


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout, with columns of nothing but numbers aligned to the right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        cells = [row[position] for row in rows if row[position]]
        numeric = bool(cells) and all(map(_is_number, cells))
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def console() -> Console:
    """Return a console for stdout, which is wide enough for any table if stdout is no terminal.

    It prints what it is given: names of models, data sets and files may hold what rich would take
    for markup (`[old]`) or for a picture (`:smile:`). Styles are given as `Text`. The
    pseudo-terminal that mpirun gives to rank 0 is no terminal here: its size is nobody's.
    """
    plain = Console(markup=False, emoji=False, highlight=False)
    if plain.is_terminal and not started_by_launcher():
        return plain
    return Console(markup=False, emoji=False, highlight=False, width=140, force_terminal=False)


def _is_number(text: str) -> bool:
    head = text.split(" ", maxsplit=1)[0].rstrip("%x")
    try:
        float(head.replace(",", ""))
    except ValueError:
        return False
    return True
