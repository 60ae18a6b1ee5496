"""Every stage that a plan can have, with its period and its memory as ranks.

Periods are long fractions and memory may be beyond machine integers. Only their order matters to
maxima, so each is replaced by its rank among all values: small integers, and just as exact.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.exact_integers import Integers, integers
from hpc_lpm.planning.search.reach import Limits, reach

Ranks = NDArray[np.int64]
MOST_STAGES = 1_500_000
"""Possible stages [start, stop) over all stage numbers: a few seconds of sorting."""


@dataclass(frozen=True)
class RankedStage:
    """All [start, stop) that one stage can hold: ranks of shape [starts, stops].

    Where [start, stop) is no stage or beyond a limit, its ranks are above those of all others; the
    period's is `none`.
    """

    starts: range
    stops: range
    period: Ranks
    memory: Ranks
    none: int


@dataclass(frozen=True)
class StageRanks:
    """The stages of all numbers, and the values behind the ranks, ascending.

    A period takes its number in `period_ticks` times `tick_seconds`.
    """

    stages: list[RankedStage]
    period_ticks: Integers
    tick_seconds: Fraction
    memory_bytes: Integers

    def period(self, rank: int) -> Fraction:
        """Return the seconds of a rank."""
        return int(self.period_ticks[rank]) * self.tick_seconds


def rank_stages(model: CostModel, longest: Fraction | None) -> StageRanks:
    """Return all stages within the model's memory limits and the period `longest`.

    Raises:
        InputError: if they are too many to look at.
    """
    bounds = reach(model, Limits(longest))
    bands = [range(low, high + 1) for low, high in zip(bounds.lowest, bounds.highest, strict=True)]
    edges = [_edges(model, stage, *bands[stage : stage + 2]) for stage in range(model.stages)]
    tick = Fraction(1, lcm(*(value for edge in edges for value in edge.denominators())))
    tables: list[_Values] = []
    for stage, edge in enumerate(edges):
        tables.append(_values(model, stage, edge, tick, longest))
        if sum(len(table.ticks) for table in tables) > MOST_STAGES:
            raise too_wide(model, longest, f"more than {MOST_STAGES:,} possible stages")
    ticks, period_ranks = _ranks([table.ticks for table in tables])
    memories, memory_ranks = _ranks([table.memory for table in tables])
    stages = [
        RankedStage(
            edge.starts,
            edge.stops,
            _table(table.possible, of_periods, len(ticks)),
            _table(table.possible, of_memory, len(memories)),
            len(ticks),
        )
        for edge, table, of_periods, of_memory in zip(
            edges, tables, period_ranks, memory_ranks, strict=True
        )
    ]
    return StageRanks(stages, ticks, tick, memories)


@dataclass(frozen=True)
class _Edges:
    """What both ends of a stage add to its period: after[stop] - before[start].

    Where transfers overlap it is no less than what the stage receives and sends in, besides.
    """

    starts: range
    stops: range
    before: list[Fraction]
    after: list[Fraction]
    receiving: list[Fraction]
    sending: list[Fraction]

    def denominators(self) -> set[int]:
        every = (*self.before, *self.after, *self.receiving, *self.sending)
        return {value.denominator for value in every}


def _edges(model: CostModel, stage: int, starts: range, stops: range) -> _Edges:
    before = [model.compute_seconds(stage, 0, start) for start in starts]
    after = [model.compute_seconds(stage, 0, stop) for stop in stops]
    receiving = [model.transfer_seconds(stage - 1, start) for start in starts]
    sending = [model.transfer_seconds(stage, stop) for stop in stops]
    if not model.overlap:
        before = [work - 2 * transfer for work, transfer in zip(before, receiving, strict=True)]
        after = [work + 2 * transfer for work, transfer in zip(after, sending, strict=True)]
    return _Edges(starts, stops, before, after, receiving, sending)


@dataclass(frozen=True)
class _Values:
    """Which stages are `possible` [starts, stops], and the values of these, row by row."""

    possible: NDArray[np.bool_]
    ticks: Integers
    memory: Integers


def _values(
    model: CostModel, stage: int, edges: _Edges, tick: Fraction, longest: Fraction | None
) -> _Values:
    ticks = _in_ticks(edges.after, tick) - _in_ticks(edges.before, tick)[:, None]
    if model.overlap:
        ticks = np.maximum(ticks, _in_ticks(edges.receiving, tick)[:, None])
        ticks = np.maximum(ticks, _in_ticks(edges.sending, tick))
    largest = 2 * model.memory_bytes(stage, 0, model.layers)
    before = integers([model.memory_bytes(stage, 0, start) for start in edges.starts], largest)
    after = integers([model.memory_bytes(stage, 0, stop) for stop in edges.stops], largest)
    memory = after - before[:, None]
    possible = np.array(edges.stops) > np.array(edges.starts)[:, None]
    possible &= memory <= Limits(longest).memory(model, stage)
    if longest is not None:
        possible &= ticks <= longest // tick
    return _Values(possible, ticks[possible], memory[possible])


def _in_ticks(seconds: Iterable[Fraction], tick: Fraction) -> NDArray[Any]:
    return np.array([int(value / tick) for value in seconds], dtype=object)


def _ranks(values: list[Integers]) -> tuple[Integers, list[Ranks]]:
    """Return the distinct values of all arrays, ascending, and each array's ranks among them."""
    distinct, ranks = np.unique(np.concatenate(values), return_inverse=True)
    ends = np.cumsum([len(part) for part in values])
    return distinct, np.split(ranks.astype(np.int64), ends[:-1])


def _table(possible: NDArray[np.bool_], ranks: Ranks, none: int) -> Ranks:
    table = np.full(possible.shape, none, dtype=np.int64)
    table[possible] = ranks
    return table


def too_wide(model: CostModel, longest: Fraction | None, found: str) -> InputError:
    """Return the error; `longest` is the period that bounds the front, `found` what is too much."""
    bound = "any period" if longest is None else f"a period of at most {float(longest):.6g} s"
    remedy = "--pareto-within, such as 0.1" if longest is None else "a smaller --pareto-within"
    return InputError(
        f"the Pareto front of {model.profile.model} ({model.layers} layers) in {model.stages} "
        f"stages takes {found} with {bound}: bound the period by {remedy}, or ask for fewer stages."
    )
