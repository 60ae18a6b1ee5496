"""A simulated pipeline drawn to scale with letters: one row a stage, time to the right."""

from collections.abc import Sequence

from hpc_lpm.schedules.instructions import Backward, Forward, Replay
from hpc_lpm.schedules.playback import Interval

LEGEND = (
    "0-9 forward of the micro-batch ending in that digit, a-j backward (a = 0), A-J replay, "
    "- transfer, . idle"
)


def timeline_rows(
    timeline: Sequence[Sequence[Interval]], end_seconds: float, columns: int
) -> list[str]:
    """Return one row of `columns` characters a stage for the time from 0 to `end_seconds`.

    A character shows what the stage does in the middle of its slice of time.
    """
    return [_row(line, end_seconds / columns, columns) for line in timeline]


def _row(line: Sequence[Interval], slice_seconds: float, columns: int) -> str:
    letters = []
    position = 0
    for column in range(columns):
        now = (column + 0.5) * slice_seconds
        while position < len(line) and line[position].end_seconds <= now:
            position += 1
        busy = position < len(line) and line[position].start_seconds <= now
        letters.append(_letter(line[position]) if busy else ".")
    return "".join(letters)


def _letter(interval: Interval) -> str:
    match interval.instruction:
        case Forward(micro_batch):
            return str(micro_batch % 10)
        case Replay(micro_batch):
            return chr(ord("A") + micro_batch % 10)
        case Backward(micro_batch):
            return chr(ord("a") + micro_batch % 10)
        case _:
            return "-"
