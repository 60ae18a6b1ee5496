"""A schedule that is read from a table of passes, as torch.distributed.pipelining writes it.

The table is its compute-only format, which `_dump_csv` writes and `_load_csv` reads: a line per
device, a cell per pass. Only text is parsed; nothing of the file is ever executed.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpc_lpm.errors import InputError
from hpc_lpm.files import read_text
from hpc_lpm.schedules.chunked import ChunkedSchedule
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    Pass,
    Programme,
    ReceiveActivation,
    ReceiveGradient,
    SendActivation,
    SendGradient,
)
from hpc_lpm.schedules.placement import Placement
from hpc_lpm.schedules.validate import ScheduleError, validate

_KINDS: dict[str, type[Forward | Backward | BackwardInput | BackwardWeights]] = {
    kind.symbol: kind for kind in (Forward, Backward, BackwardInput, BackwardWeights)
}
_PASS = re.compile(r"(\d{1,6})([FBIW])(\d{1,6})")
_PAIR = re.compile(r"\((.*)\)OVERLAP_F_B")
_ACCEPTED = (
    "accepted are empty cells and passes as in 2F0: the stage, F, B, I or W, and the micro-batch"
)

_OVERLAPPING = {"B": "IW", "I": "B", "W": "B"}
"""The kinds of passes that do some of what a kind does."""

_NO_PASSES = (SendActivation, ReceiveActivation, SendGradient, ReceiveGradient)

Cell = tuple[int, str, int]
"""Stage, kind and micro-batch of a pass."""


class TableSchedule(ChunkedSchedule):
    """The schedule of one table, for its number of devices and of micro-batches per step alone.

    Args:
        name: what the user calls it.
        rows: the passes of each device, in order.

    Raises:
        InputError: if the passes do not make a sound schedule.
    """

    def __init__(self, name: str, rows: list[list[Cell]]) -> None:
        super().__init__()
        self.name = name
        held = tuple(tuple(sorted({stage for stage, _, _ in row})) for row in rows)
        self._placement = _checked_placement(name, held)
        self._micro_batches = 1 + max(micro_batch for row in rows for _, _, micro_batch in row)
        self.description = f"a table of {len(rows)} devices and {self._micro_batches} micro-batches"
        self.chunks = self._placement.chunks
        self.splits_backward = any(kind in "IW" for row in rows for _, kind, _ in row)
        self._rows: list[list[Pass]] = [
            [_KINDS[kind](number, self._placement.chunk(stage)) for stage, kind, number in row]
            for row in rows
        ]
        self._check()

    @classmethod
    def read(cls, name: str, path: Path) -> "TableSchedule":
        """Read a schedule from a file.

        Raises:
            InputError: if the file cannot be read, or is no table of a sound schedule.
        """
        try:
            lines = io.StringIO(read_text(path), newline="")
            rows = [_passes(name, number, row) for number, row in enumerate(csv.reader(lines), 1)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                f"schedule {name!r} cannot be read ({error}): name a CSV file with a line of "
                "passes for each device."
            ) from error
        if not rows:
            raise InputError(
                f"schedule {name!r} is an empty file: write a line of passes for each device."
            )
        return cls(name, rows)

    def placement(self, stages: int) -> Placement:
        """Return which device holds which stages, as the table has it.

        Raises:
            InputError: if the table has another number of stages.
        """
        if stages != self._placement.stages:
            raise InputError(
                f"there are {stages} stages, but schedule {self.name!r} is a table of "
                f"{self._placement.stages}, {self.chunks} on each of {self._placement.devices} "
                "devices: make the plan for this schedule, or write a table for so many."
            )
        return self._placement

    def check_fits(self, devices: int, micro_batches_per_step: int) -> None:
        """Check that the table has so many devices and micro-batches.

        Raises:
            InputError: if it has others.
        """
        if (devices, micro_batches_per_step) != (self._placement.devices, self._micro_batches):
            raise InputError(
                f"there are {devices} devices and {micro_batches_per_step} micro-batches per step, "
                f"but schedule {self.name!r} is a table of {self._placement.devices} and "
                f"{self._micro_batches}: use as many, or write a table for these."
            )

    def order(self, device: int, devices: int, micro_batches: int) -> Iterable[Pass]:
        """Return the passes of the device's line.

        Raises:
            InputError: as `check_fits`.
        """
        self.check_fits(devices, micro_batches)
        return self._rows[device]

    def _check(self) -> None:
        """Prove that a whole step and a shorter one are sound."""
        stages, per_step = self._placement.stages, self._micro_batches
        total = per_step + per_step // 2
        # A table says nothing of what may be in flight, so that there is no bound to check.
        bounds = [total] * stages
        programmes = self.programmes(stages, per_step, total)
        try:
            validate(programmes, per_step, total, bounds, self._placement)
        except ScheduleError as error:
            place = self._place(error.device, programmes[error.device][error.index :])
            said = f"schedule {self.name!r} is unsound at {error.sentence} ({place})"
            raise InputError(said, error.picture) from None

    def _place(self, device: int, rest: Programme) -> str:
        """Return where in the table a device stands that has the instructions `rest` to run."""
        line = f"line {device + 1} of the table"
        following = next((item for item in rest if not isinstance(item, _NO_PASSES)), None)
        if isinstance(following, Pass):
            stage = self._placement.stage(device, following.chunk)
            number = following.micro_batch % self._micro_batches
            return f"{stage}{following.symbol}{number} in {line}"
        return f"the end of {line}"


def _passes(name: str, line: int, row: list[str]) -> list[Cell]:
    """Parse the line of one device.

    Raises:
        InputError: if a cell is none of a compute-only table or repeats what one before it does,
            or all are empty.
    """
    found: list[Cell] = []
    cells: dict[Cell, int] = {}
    for number, cell in enumerate(row, 1):
        for item in _parsed(name, line, number, cell):
            _check_once(name, line, number, item, cells)
            found.append(item)
            cells[item] = number
    if not found:
        raise InputError(
            f"line {line} of schedule {name!r} has no passes: write those of its device, or "
            "remove the line."
        )
    return found


def _check_once(name: str, line: int, number: int, item: Cell, before: dict[Cell, int]) -> None:
    """Refuse a pass of which an earlier cell has the same, the whole, or a half.

    Raises:
        InputError: naming both cells.
    """
    stage, kind, micro_batch = item
    for other in (kind, *_OVERLAPPING.get(kind, "")):
        earlier = before.get((stage, other, micro_batch))
        if earlier is not None:
            whole_or_halves = "B alone, or one I and one W, for a backward"
            raise InputError(
                f"line {line}, cell {number} of schedule {name!r} is "
                f"'{stage}{kind}{micro_batch}', but cell {earlier} is "
                f"'{stage}{other}{micro_batch}' already: write "
                f"{'each pass once' if other == kind else whole_or_halves}."
            )


def _parsed(name: str, line: int, number: int, cell: str) -> Iterator[Cell]:
    """Yield the passes of a cell: none, one, or the two that torch would run at the same time."""
    pair = _PAIR.fullmatch(cell.strip())
    for part in pair[1].split(";") if pair else [cell]:
        text = part.strip()
        if not text and not pair:
            return
        match = _PASS.fullmatch(text)
        if match is None:
            raise InputError(
                f"line {line}, cell {number} of schedule {name!r} is {cell[:40]!r}, {_ACCEPTED}; "
                "write the table without communication, or correct the cell."
            )
        yield int(match[1]), match[2], int(match[3])


def _checked_placement(name: str, held: tuple[tuple[int, ...], ...]) -> Placement:
    """Return the placement of these stages, each on one line.

    Raises:
        InputError: if a stage is missing or comes twice, or lines hold unequal numbers of them.
    """
    stages = sorted(stage for line in held for stage in line)
    for number, stage in enumerate(stages):
        if stage == number:
            continue
        if stage < number:
            raise InputError(
                f"schedule {name!r} has passes of stage {stage} on several lines: write all of a "
                "stage on the line of one device."
            )
        raise InputError(
            f"schedule {name!r} has no passes of stage {number}, but of stage {stages[-1]}: "
            "write some on one line for every stage from 0 on."
        )
    counts = [len(line) for line in held]
    if len(set(counts)) > 1:
        raise InputError(
            f"the lines of schedule {name!r} have passes of {', '.join(map(str, counts))} stages, "
            "accepted are equally many on each: place the stages evenly."
        )
    return Placement(held)
