"""Which stages [start, stop) are within limits, for all starts and stops of two bands of cuts.

An arc is one possible stage; starts and stops are numbered within their bands. The search needs
two things of the arcs of a stage: for every start the least value over the stops it can have
(`none` if it has no stop), and the stops of one given start.
"""

from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.reach import Limits

Integers = NDArray[Any]
"""Exact integers: int64, or Python's own where they may grow beyond it."""

_LARGEST_MACHINE_INTEGER = 2**61
_ROWS_AT_ONCE = 256


def integers(values: list[int], largest: int) -> Integers:
    """Return an array of exact integers: of the machine's where `largest` fits, else Python's."""
    fits = largest < _LARGEST_MACHINE_INTEGER
    return np.array(values, dtype=np.int64 if fits else object)


class WindowArcs:
    """Arcs where transfers overlap: the stops of a start are a window, moving on with the start.

    Cuts whose transfer takes longer than the period are left out by the search, not here.
    `next_period` is a period below which the arcs stay as they are, None if none changes them.
    """

    def __init__(
        self,
        model: CostModel,
        stage: int,
        starts: range,
        stops: range,
        *,
        limits: Limits,
        none: int,
    ) -> None:
        self.none = none
        by_memory = _stops_within_memory(model, stage, starts, stops, limits)
        by_work, self.next_period = _stops_within_work(model, stage, starts, stops, limits)
        self.ends = np.minimum(by_memory, by_work)
        self.begins = _first_stops(starts, stops)

    def least_over_stops(self, values: Integers) -> Integers:
        """Return the least of each window from a table of the least of 2^p neighbours."""
        lengths = self.ends - self.begins
        result = np.full(len(lengths), self.none, dtype=values.dtype)
        table = values
        width = 1
        longest = int(lengths.max(initial=0))
        while width <= longest:
            chosen = np.flatnonzero((lengths >= width) & (lengths < 2 * width))
            left = table[self.begins[chosen]]
            right = table[self.ends[chosen] - width]
            result[chosen] = np.minimum(left, right)
            table = np.minimum(table[:-width], table[width:])
            width *= 2
        return result

    def stops_of(self, start: int) -> NDArray[np.intp]:
        """Return the stops that `start` can have, ascending."""
        return np.arange(self.begins[start], self.ends[start])


class FullArcs:
    """Arcs where transfers do not overlap: whether a stop is possible depends on both its ends.

    [start, stop) is possible if after(stop) <= before(start) + period, where after = work of all
    layers before stop + 2 X(stop) and before = work of all layers before start - 2 X(start).
    `next_period` is a period below which the arcs stay as they are, None if none changes them.
    """

    def __init__(
        self,
        model: CostModel,
        stage: int,
        starts: range,
        stops: range,
        *,
        limits: Limits,
        none: int,
    ) -> None:
        self.none = none
        self.begins = _first_stops(starts, stops)
        self.ends = _stops_within_memory(model, stage, starts, stops, limits)
        after = [
            model.compute_seconds(stage, 0, stop) + 2 * model.transfer_seconds(stop)
            for stop in stops
        ]
        before = [
            model.compute_seconds(stage, 0, start) - 2 * model.transfer_seconds(start)
            for start in starts
        ]
        period = limits.period
        self.next_period: Fraction | None = None
        if period is None:
            self.ranks = np.zeros(len(stops), dtype=np.int64)
            self.bounds = np.ones(len(starts), dtype=np.int64)
            return
        unit = Fraction(1, lcm(*(value.denominator for value in (*after, *before, period))))
        ticks = np.array([int(value / unit) for value in after], dtype=object)
        needs = np.array([int((value + period) / unit) for value in before], dtype=object)
        order = np.argsort(ticks, kind="stable")
        # Comparing ranks instead of long integers is what keeps the table of all pairs cheap.
        self.ranks = np.empty(len(stops), dtype=np.int64)
        self.ranks[order] = np.arange(len(stops))
        self.bounds = np.searchsorted(ticks[order], needs, side="right").astype(np.int64)
        beyond = np.flatnonzero(self.bounds < len(stops))
        if len(beyond):
            gap = (ticks[order][self.bounds[beyond]] - needs[beyond]).min()
            self.next_period = period + int(gap) * unit

    def least_over_stops(self, values: Integers) -> Integers:
        """Return the least over the stops of every start, a block of starts at a time."""
        result = np.full(len(self.begins), self.none, dtype=values.dtype)
        for first in range(0, len(result), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            masked = np.where(self._possible(rows), values, self.none)
            result[rows] = masked.min(axis=1, initial=self.none)
        return result

    def stops_of(self, start: int) -> NDArray[np.intp]:
        """Return the stops that `start` can have, ascending."""
        return np.flatnonzero(self._possible(slice(start, start + 1))[0])

    def _possible(self, rows: slice) -> NDArray[np.bool_]:
        stops = np.arange(len(self.ranks))
        return np.asarray(
            (self.ranks < self.bounds[rows, None])
            & (stops >= self.begins[rows, None])
            & (stops < self.ends[rows, None])
        )


def _first_stops(starts: range, stops: range) -> NDArray[np.int64]:
    """Return for every start the number of the first stop behind it."""
    behind = np.arange(starts.start + 1, starts.stop + 1, dtype=np.int64) - stops.start
    return np.clip(behind, 0, len(stops))


def _stops_within_memory(
    model: CostModel, stage: int, starts: range, stops: range, limits: Limits
) -> NDArray[np.int64]:
    """Return for every start how many stops (from the band's first on) its memory allows."""
    limit = limits.memory(model, stage)
    largest = 2 * model.memory_bytes(stage, 0, model.layers)
    after = integers([model.memory_bytes(stage, 0, stop) for stop in stops], largest)
    before = integers([model.memory_bytes(stage, 0, start) for start in starts], largest)
    return np.searchsorted(after, before + limit, side="right").astype(np.int64)


def _stops_within_work(
    model: CostModel, stage: int, starts: range, stops: range, limits: Limits
) -> tuple[NDArray[np.int64], Fraction | None]:
    """Return for every start how many stops its compute allows, and the next period."""
    limit = limits.work(model, stage)
    largest = 2 * model.work(stage, 0, model.layers)
    after = integers([model.work(stage, 0, stop) for stop in stops], largest)
    before = integers([model.work(stage, 0, start) for start in starts], largest)
    counts = np.searchsorted(after, before + limit, side="right").astype(np.int64)
    beyond = np.flatnonzero(counts < len(stops))
    if len(beyond) == 0:
        return counts, None
    work = int((after[counts[beyond]] - before[beyond]).min())
    return counts, work * model.factors[stage].seconds_per_work
