"""The order of computation of a stage as an array, for pipelines too large for objects.

A stage of 10 steps of 4,096 micro-batches executes some 80,000 passes; of 1,024 such stages one
byte each is held. The codes are those of `Schedule.programme` without its messages, which stand in
the same places for every schedule.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.schedules.base import Schedule
from hpc_lpm.schedules.instructions import Backward, Forward, Instruction, Update
from hpc_lpm.schedules.ordering import check_arguments, runs_ahead

FORWARD, BACKWARD, REPLAY, REDUCE, UPDATE = range(5)
"""The codes, by the names of the instructions that they stand for."""

Codes = NDArray[np.uint8]
_Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class StagePasses:
    """The forwards and backwards of one stage, in order.

    Attributes:
        kinds: `FORWARD` or `BACKWARD` of each pass.
        micro_batches: which one each pass is about.
        updates: whether an update follows the pass.
    """

    kinds: Codes
    micro_batches: NDArray[np.int64]
    updates: _Flags

    @classmethod
    def of(
        cls, schedule: Schedule, stage: int, stages: int, per_step: int, total: int, lead: int
    ) -> Self:
        """Ask a schedule for the passes of `total` micro-batches, `per_step` of them a step.

        Raises:
            ValueError: if an argument is out of range.
        """
        check_arguments(stage, stages, per_step, total, lead)
        if type(schedule).compute is not Schedule.compute:
            return cls._of_instructions(schedule.compute(stage, stages, per_step, total, lead))
        ahead = schedule.ahead(stage, stages, per_step, lead)
        counts = schedule.between_drains(per_step, total)
        runs = {count: _kinds_ahead(count, ahead) for count in set(counts)}
        kinds = np.concatenate([runs[count] for count in counts] or [_kinds_ahead(0, 0)])
        micro_batches = np.empty(len(kinds), np.int64)
        for kind in (FORWARD, BACKWARD):
            # Both kinds of passes run in ascending order of their micro-batches.
            micro_batches[kinds == kind] = np.arange(total)
        ends = (micro_batches % per_step == per_step - 1) | (micro_batches == total - 1)
        return cls(kinds, micro_batches, (kinds == BACKWARD) & ends)

    @classmethod
    def _of_instructions(cls, instructions: Iterable[Instruction]) -> Self:
        kinds, micro_batches, updates = bytearray(), [], []
        for instruction in instructions:
            match instruction:
                case Forward(micro_batch) | Backward(micro_batch):
                    kinds.append(FORWARD if isinstance(instruction, Forward) else BACKWARD)
                    micro_batches.append(micro_batch)
                    updates.append(False)
                case Update():
                    updates[-1] = True
        return cls(
            np.frombuffer(bytes(kinds), np.uint8),
            np.array(micro_batches, np.int64),
            np.array(updates, np.bool_),
        )

    @property
    def most_in_flight(self) -> int:
        """How many micro-batches are between their passes at most."""
        changes = np.where(self.kinds == FORWARD, 1, -1)
        return int(np.cumsum(changes).max(initial=0))

    def codes(self, *, replay: bool, replicas: int, flushes: bool) -> Codes:
        """Return all that the stage executes but its messages.

        With `replay` lagged micro-batches run forward again, with several `replicas` an average
        begins where an update would stand, and where the schedule does not flush the update comes
        after the next forward: what `with_replays` and `with_replicas` insert.
        """
        updates, reduces = self.updates, np.zeros_like(self.updates)
        if replicas > 1:
            reduces = updates
            updates = updates if flushes else self._after_the_next_forward()
        replays = self._lagged(updates) if replay else np.zeros_like(updates)
        lengths = 1 + replays.astype(np.int64) + reduces + updates
        ends = np.cumsum(lengths)
        passes = ends - lengths + replays
        codes = np.empty(int(lengths.sum()), np.uint8)
        codes[passes[replays] - 1] = REPLAY
        codes[passes] = self.kinds
        codes[passes[reduces] + 1] = REDUCE
        codes[ends[updates] - 1] = UPDATE
        return codes

    def _after_the_next_forward(self) -> _Flags:
        forwards = np.flatnonzero(self.kinds == FORWARD)
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
