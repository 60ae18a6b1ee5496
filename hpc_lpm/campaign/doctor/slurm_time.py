"""Times as Slurm writes them."""

import re

_FORM = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")


def minutes_of(text: str) -> float | None:
    """Return the minutes of `[days-]hours:minutes:seconds` or `minutes:seconds`, None if unlimited.

    Slurm drops the fields before the first that counts; behind days the first is hours.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:  # `infinite`, `n/a`
        return None
    fields = [int(field) for field in found["fields"].split(":")]
    if found["days"]:
        hours, minutes, seconds = (*fields, 0, 0)[:3]
        return 60.0 * (24 * int(found["days"]) + hours) + minutes + seconds / 60.0
    if len(fields) == 1:
        return float(fields[0])
    hours, minutes, seconds = (0, 0, *fields)[-3:]
    return 60.0 * hours + minutes + seconds / 60.0
