"""Non-dominated partial plans: the ways in which the last stages can hold all layers after a cut.

Label-setting dynamic programme with several objectives (Martins, 1984), from the last stage to the
first. A label of cut i before stage k stands for one way to put layers [i, L) into stages k to
K - 1: the largest period, the largest memory, the sum of bytes. None of the three ever falls when
stages are added in front, so a label that another label of its cut dominates is dropped.

What keeps labels few: whatever lies behind cut i, the stages before it take at least a certain
period and a certain memory. Lower values are raised to these bounds, because no whole plan can show
the difference.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.exact_integers import Integers, integers
from hpc_lpm.planning.pareto.non_dominated import non_dominated
from hpc_lpm.planning.pareto.stage_ranks import RankedStage, Ranks, StageRanks, too_wide

MOST_LABELS = 200_000
"""Labels before one stage, of all its cuts."""


@dataclass(frozen=True)
class PartialPlans:
    """Labels of the cuts before one stage, by ascending cut: arrays of one length.

    `period` and `memory` are ranks; `sent_bytes` cross `cut` and all cuts behind it.
    """

    cut: Ranks
    period: Ranks
    memory: Ranks
    sent_bytes: Integers

    def of_cuts(self, first: int, last: int) -> "PartialPlans":
        """Return the labels of the cuts from `first` to `last`."""
        begin = int(np.searchsorted(self.cut, first, side="left"))
        end = int(np.searchsorted(self.cut, last, side="right"))
        return self.at(slice(begin, end))

    def at(self, positions: slice | NDArray[Any]) -> "PartialPlans":
        """Return the labels at some positions, or where a mask is True."""
        return PartialPlans(
            self.cut[positions],
            self.period[positions],
            self.memory[positions],
            self.sent_bytes[positions],
        )


def partial_plans(
    model: CostModel, ranks: StageRanks, longest: Fraction | None
) -> list[PartialPlans]:
    """Return the labels before every stage and, as entry K, behind the last.

    Those of entry 0 are whole plans: the Pareto front, by ascending period. `longest` is the
    period that bounds it.

    Raises:
        InputError: if the labels are too many.
    """
    largest = 2 * sum(model.cut_bytes)
    zero = np.zeros(1, dtype=np.int64)
    plans = [PartialPlans(zero + model.layers, zero, zero, integers([0], largest))]
    bounds = _bounds(ranks.stages)
    for stage, least in zip(reversed(ranks.stages), reversed(bounds), strict=True):
        plans.append(_before(model, stage, least, plans[-1], longest))
    return plans[::-1]


@dataclass(frozen=True)
class _Bounds:
    """The least period and memory that the stages before each start of a stage take, as ranks."""

    period: Ranks
    memory: Ranks


def _bounds(stages: list[RankedStage]) -> list[_Bounds]:
    zero = np.zeros(1, dtype=np.int64)
    bounds = [_Bounds(zero, zero)]
    for stage in stages[:-1]:
        period = np.maximum(bounds[-1].period[:, None], stage.period).min(axis=0)
        memory = np.maximum(bounds[-1].memory[:, None], stage.memory).min(axis=0)
        bounds.append(_Bounds(period, memory))
    return bounds


def _before(
    model: CostModel,
    stage: RankedStage,
    least: _Bounds,
    behind: PartialPlans,
    longest: Fraction | None,
) -> PartialPlans:
    """Return the labels of all starts of `stage`, made of the labels behind it."""
    parts = []
    labels = 0
    for row, start in enumerate(stage.starts):
        possible = np.flatnonzero(stage.period[row] < stage.none)
        if len(possible) == 0 or least.period[row] == stage.none:
            continue
        ways = behind.of_cuts(stage.stops[possible[0]], stage.stops[possible[-1]])
        ways = ways.at(stage.period[row, ways.cut - stage.stops.start] < stage.none)
        columns = ways.cut - stage.stops.start
        period = np.maximum(ways.period, stage.period[row, columns])
        memory = np.maximum(ways.memory, stage.memory[row, columns])
        period = np.maximum(period, least.period[row])
        memory = np.maximum(memory, least.memory[row])
        kept = non_dominated(period, ways.sent_bytes, memory)
        labels += len(kept)
        if labels > MOST_LABELS:
            raise too_wide(model, longest, f"more than {MOST_LABELS:,} partial plans")
        cut = np.full(len(kept), start, dtype=np.int64)
        sent = ways.sent_bytes[kept] + model.cut_bytes[start]
        parts.append(PartialPlans(cut, period[kept], memory[kept], sent))
    return PartialPlans(
        np.concatenate([part.cut for part in parts]),
        np.concatenate([part.period for part in parts]),
        np.concatenate([part.memory for part in parts]),
        np.concatenate([part.sent_bytes for part in parts]),
    )
