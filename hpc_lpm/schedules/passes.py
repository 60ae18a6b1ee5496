"""The order of computation of a device as an array, for pipelines too large for objects.

A device of 10 steps of 4,096 micro-batches executes some 80,000 passes; of 1,024 such devices one
byte each is held. The codes are those of `Schedule.programme` without its messages, which stand in
the same places for every schedule.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.chunked import ChunkedSchedule
from hpc_lpm.schedules.instructions import (
    Backward,
    BackwardInput,
    BackwardWeights,
    Forward,
    Instruction,
    Pass,
    Replay,
    Update,
)
from hpc_lpm.schedules.ordering import check_arguments, runs_ahead

FORWARD, BACKWARD, REPLAY, BACKWARD_INPUT, BACKWARD_WEIGHTS, LAST_FORWARD = range(6)
"""Kinds of passes, by the names of their instructions; the last forward is marked as such."""
KINDS = 6

_KIND_OF: dict[type[Instruction], int] = {
    Forward: FORWARD,
    Backward: BACKWARD,
    Replay: REPLAY,
    BackwardInput: BACKWARD_INPUT,
    BackwardWeights: BACKWARD_WEIGHTS,
}

Codes = NDArray[np.unsignedinteger[Any]]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CodeTable:
    """The codes of what a device executes that holds so many chunks.

    Passes come first, `kind` x chunks + chunk; a device's last forward counts as a kind of its own.
    """

    chunks: int

    def of(self, kind: int, chunk: int = 0) -> int:
        """Return the code of a pass."""
        return kind * self.chunks + chunk

    @property
    def first_noted(self) -> int:
        """The least code of what is more than a pass: last forwards, reduces, updates, ends."""
        return LAST_FORWARD * self.chunks

    @property
    def reduce(self) -> int:
        """The code of a reduce; those of all passes are below it."""
        return KINDS * self.chunks

    @property
    def update(self) -> int:
        """The code of an update."""
        return self.reduce + 1

    @property
    def end(self) -> int:
        """What stands behind the last code of a device."""
        return self.reduce + 2

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The type of codes: a byte unless there are very many chunks."""
        return np.uint8 if self.end < 256 else np.uint16

    @property
    def count(self) -> int:
        """How many codes there are."""
        return self.end + 1


@dataclass(frozen=True)
class DevicePasses:
    """The passes of one device without replays, in order.

    Attributes:
        table: the codes of a device with so many chunks.
        kinds: the code of each pass; forwards have those below the number of chunks.
        micro_batches: which one each pass is about.
        updates: whether an update follows the pass.
    """

    table: CodeTable
    kinds: Codes
    micro_batches: NDArray[np.int64]
    updates: _Flags

    @classmethod
    def of(
        cls, schedule: Schedule, device: int, stages: int, per_step: int, total: int, lead: int
    ) -> Self:
        """Ask a schedule for the passes of `total` micro-batches, `per_step` of them a step.

        Raises:
            ValueError: if an argument is out of range.
            InputError: if so many stages cannot be placed.
        """
        placement = schedule.placement(stages)
        check_arguments(device, placement.devices, per_step, total, lead)
        table = CodeTable(placement.chunks)
        asked = device, stages, per_step
        if isinstance(schedule, ChunkedSchedule):
            if type(schedule).compute is ChunkedSchedule.compute:
                # Not `schedule.step`, which keeps the passes of every device that it was asked for.
                order = schedule.order(device, placement.devices, per_step)
                return cls._of_steps(table, order, per_step, total)
            return cls._of_instructions(table, schedule.compute(*asked, total, lead))
        if type(schedule).compute is not Schedule.compute:
            return cls._of_instructions(table, schedule.compute(*asked, total, lead))
        ahead = schedule.ahead(*asked, lead)
        counts = schedule.between_drains(per_step, total)
        runs = {count: _kinds_ahead(count, ahead) for count in set(counts)}
        kinds = np.concatenate([runs[count] for count in counts] or [_kinds_ahead(0, 0)])
        micro_batches = np.empty(len(kinds), np.int64)
        for kind in (FORWARD, BACKWARD):
            # Both kinds of passes run in ascending order of their micro-batches.
            micro_batches[kinds == kind] = np.arange(total)
        ends = (micro_batches % per_step == per_step - 1) | (micro_batches == total - 1)
        return cls(table, kinds, micro_batches, (kinds == BACKWARD) & ends)

    @classmethod
    def _of_instructions(cls, table: CodeTable, instructions: Iterable[Instruction]) -> Self:
        kinds: list[int] = []
        micro_batches: list[int] = []
        updates: list[bool] = []
        for instruction in instructions:
            if isinstance(instruction, Update):
                updates[-1] = True
            elif isinstance(instruction, Pass):
                kinds.append(table.of(_KIND_OF[type(instruction)], instruction.chunk))
                micro_batches.append(instruction.micro_batch)
                updates.append(False)
        return cls(
            table,
            np.array(kinds, table.dtype),
            np.array(micro_batches, np.int64),
            np.array(updates, np.bool_),
        )

    @classmethod
    def _of_steps(cls, table: CodeTable, passes: Iterable[Pass], per_step: int, total: int) -> Self:
        """Repeat the passes of one step; the last one may have fewer micro-batches."""
        steps = -(-total // per_step)
        one = cls._of_instructions(table, passes)
        firsts = np.repeat(np.arange(steps) * per_step, len(one.kinds))
        micro_batches = np.tile(one.micro_batches, steps) + firsts
        there = micro_batches < total
        first_kept = firsts[there]
        updates = np.append(first_kept[1:] != first_kept[:-1], True)[: len(first_kept)]
        return cls(table, np.tile(one.kinds, steps)[there], micro_batches[there], updates)

    @property
    def most_in_flight(self) -> list[int]:
        """How many micro-batches are in flight at most in each chunk."""
        return [self._most_in_flight(chunk) for chunk in range(self.table.chunks)]

    def _most_in_flight(self, chunk: int) -> int:
        of = self.table.of
        ended = (self.kinds == of(BACKWARD, chunk)) | (self.kinds == of(BACKWARD_WEIGHTS, chunk))
        changes = (self.kinds == of(FORWARD, chunk)).astype(np.int64) - ended
        return int(np.cumsum(changes).max(initial=0))

    def codes(self, *, replay: bool, replicas: int, flushes: bool) -> Codes:
        """Return all that the device executes but its messages.

        With `replay` lagged micro-batches run forward again, with several `replicas` an average
        begins where an update would stand, and where the schedule does not flush the update comes
        after the next forward: what `with_replays` and `with_replicas` insert.
        """
        updates, reduces = self.updates, np.zeros_like(self.updates)
        if replicas > 1:
            reduces = updates
            updates = updates if flushes else self._after_the_next_forward()
        replays = self._lagged(updates) if replay and not flushes else np.zeros_like(updates)
        lengths = 1 + replays.astype(np.int64) + reduces + updates
        ends = np.cumsum(lengths)
        passes = ends - lengths + replays
        codes = np.empty(int(lengths.sum()), self.table.dtype)
        codes[passes[replays] - 1] = self.table.of(REPLAY)
        codes[passes] = self.kinds
        codes[passes[reduces] + 1] = self.table.reduce
        codes[ends[updates] - 1] = self.table.update
        return codes

    def _after_the_next_forward(self) -> _Flags:
        forwards = np.flatnonzero(self.kinds < self.table.chunks)
        places = np.flatnonzero(self.updates)
        later = np.searchsorted(forwards, places, side="right")
        moved = self.updates.copy()
        moves = later < len(forwards)
        moved[places[moves]] = False
        moved[forwards[later[moves]]] = True
        return moved

    def _lagged(self, updates: _Flags) -> _Flags:
        """Tell which backwards are of micro-batches that an update has overtaken."""
        before: NDArray[np.int64] = np.cumsum(updates) - updates
        forwards, backwards = (np.flatnonzero(self.kinds == kind) for kind in (FORWARD, BACKWARD))
        seen = np.empty(len(forwards), np.int64)
        seen[self.micro_batches[forwards]] = before[forwards]
        lagged = np.zeros_like(updates)
        lagged[backwards] = before[backwards] != seen[self.micro_batches[backwards]]
        return lagged


def _kinds_ahead(count: int, ahead: int) -> Codes:
    code = {Forward: FORWARD, Backward: BACKWARD}
    runs = [
        np.tile(np.array([code[kind] for kind in kinds], np.uint8), times)
        for kinds, times in runs_ahead(count, ahead)
    ]
    return np.concatenate(runs)
