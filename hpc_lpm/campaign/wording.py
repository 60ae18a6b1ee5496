"""Lists and counts in sentences."""

NAMED = 4
"""How many names a sentence lists before it counts the rest."""


def counted(count: int, what: str) -> str:
    """Return e.g. `1 trial` or `2 trials`."""
    return f"{count} {what}{'s' if count != 1 else ''}"


def listed(names: list[str]) -> str:
    """Return names as `a, b, c`, or the first of many and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
