"""Draw programmes with one row per stage: as a table of time slots, or with letters to scale."""

from collections.abc import Mapping, Sequence

from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    Programme,
    Reduce,
    Replay,
    Update,
)
from hpc_lpm.schedules.placement import Placement
from hpc_lpm.schedules.playback import Playback, StageTimeline, TimedInstruction, UnitClock, play


def draw(
    programmes: Sequence[Programme],
    marks: Mapping[tuple[int, int], str] | None = None,
    placement: Placement | None = None,
) -> str:
    """Return the schedule as a table in which every pass takes one slot.

    `F2` and `B2` are the passes of micro-batch 2, `I2` and `W2` the halves of a backward that is
    split, `F2.1` a pass of a device's chunk 1, `R2` a replay, `a` the start of an average over
    replicas and `u` an optimizer step after the pass, `.` an idle slot. `marks` maps (device, index
    of the instruction) to a text that is drawn where that instruction stands, behind its pass.
    """
    playback = play(programmes, UnitClock(), placement)
    marks = marks or {}
    rows = [_cells(programme, playback, stage, marks) for stage, programme in enumerate(programmes)]
    columns = max((len(row) for row in rows), default=0)
    widths = [
        max(2, *(len(row[slot]) for row in rows if slot < len(row))) for slot in range(columns)
    ]
    name = "stage" if placement is None or placement.chunks == 1 else "device"
    label = len(f"{name} {len(rows) - 1}")
    lines = []
    for number, row in enumerate(rows):
        filled = [*row, *["."] * (columns - len(row))]
        cells = (cell.ljust(width) for cell, width in zip(filled, widths, strict=True))
        lines.append(f"{f'{name} {number}'.ljust(label)}  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def _cells(
    programme: Programme, playback: Playback, stage: int, marks: Mapping[tuple[int, int], str]
) -> list[str]:
    """Return the texts of one row; marks of instructions never reached come after its last cell."""
    cells: list[str] = []
    for index, timed in enumerate(playback.timelines[stage]):
        slot = int(timed.start_seconds)
        match timed.instruction:
            case Forward() | Replay() | Backward() | BackwardInput() | BackwardWeights():
                cells.extend("." for _ in range(slot - len(cells)))
                cells.append(str(timed.instruction))
            case Reduce() | Update():
                if not cells:
                    cells.append("")
                cells[-1] += "a" if isinstance(timed.instruction, Reduce) else "u"
        if (stage, index) in marks:
            if not cells:
                cells.append("")
            cells[-1] += marks[stage, index]
    reached = len(playback.timelines[stage])
    cells.extend(
        marks[stage, index]
        for index in range(reached, len(programme) + 1)
        if (stage, index) in marks
    )
    return cells


LEGEND = (
    "0-9 forward of the micro-batch ending in that digit, a-j backward (a = 0), A-J replay, "
    "w gradients of weights, - transfer, . idle"
)


def draw_timelines(
    timelines: Sequence[StageTimeline], end_seconds: float, columns: int
) -> list[str]:
    """Return one row of `columns` characters per stage for the time from 0 to `end_seconds`.

    A character shows what the stage does in the middle of its slice of time.
    """
    return [_row(timeline, end_seconds / columns, columns) for timeline in timelines]


def _row(timeline: StageTimeline, slice_seconds: float, columns: int) -> str:
    letters = []
    position = 0
    for column in range(columns):
        now = (column + 0.5) * slice_seconds
        while position < len(timeline) and timeline[position].end_seconds <= now:
            position += 1
        busy = position < len(timeline) and timeline[position].start_seconds <= now
        letters.append(_letter(timeline[position]) if busy else ".")
    return "".join(letters)


def _letter(timed: TimedInstruction) -> str:
    match timed.instruction:
        case Forward(micro_batch):
            return str(micro_batch % 10)
        case Replay(micro_batch):
            return chr(ord("A") + micro_batch % 10)
        case Backward(micro_batch) | BackwardInput(micro_batch):
            return chr(ord("a") + micro_batch % 10)
        case BackwardWeights():
            return "w"
        case _:
            return "-"
