"""Writes pieces of Markdown."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a pipe within a cell is escaped and a line break becomes a space."""
    lines = [_row(columns), _row(["---"] * len(columns)), *(_row(cells) for cells in rows)]
    return "\n".join(lines)


def code(text: object) -> str:
    """Return inline code, or nothing for an empty text."""
    return f"`{text}`" if str(text) else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"
