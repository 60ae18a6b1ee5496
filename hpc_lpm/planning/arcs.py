"""Which stages [start, stop) are within limits, for all starts and stops of two bands of cuts.

An arc is one possible stage; starts and stops are numbered within their bands. The search needs
two things of the arcs of a stage: for every start the least value over the stops it can have
(`none` if it has no stop), and the stops of one given start.
"""

from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.dominance import least_below
from hpc_lpm.planning.integers import Integers
from hpc_lpm.planning.reach import Limits

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
        self.next_period: Fraction | None = None
        period = limits.period
        if period is None:
            self.ranks = np.arange(len(stops), dtype=np.int64)
            self.bounds = np.full(len(starts), len(stops), dtype=np.int64)
            return
        clock = _Clock(model, stage, period)
        after = clock.work_before(stops) + clock.transfers(stage, stops)
        needs = clock.work_before(starts) - clock.transfers(stage - 1, starts) + clock.period
        order = np.argsort(after, kind="stable")
        # Comparing ranks instead of long integers is what keeps the search cheap.
        self.ranks = np.empty(len(stops), dtype=np.int64)
        self.ranks[order] = np.arange(len(stops))
        self.bounds = np.searchsorted(after[order], needs, side="right").astype(np.int64)
        beyond = np.flatnonzero(self.bounds < len(stops))
        if len(beyond):
            gap = (after[order][self.bounds[beyond]] - needs[beyond]).min()
            self.next_period = period + int(gap) * clock.unit_seconds

    def least_over_stops(self, values: Integers) -> Integers:
        """Return the least over the stops of every start."""
        return least_below(values, self.ranks, self.begins, self.ends, self.bounds, self.none)

    def stops_of(self, start: int) -> NDArray[np.intp]:
        """Return the stops that `start` can have, ascending."""
        window = self.ranks[self.begins[start] : self.ends[start]]
        return self.begins[start] + np.flatnonzero(window < self.bounds[start])


class _Clock:
    """Times at one stage as whole numbers of a unit that divides all of them."""

    def __init__(self, model: CostModel, stage: int, period: Fraction) -> None:
        links = [model.links[at] for at in (stage - 1, stage) if 0 <= at < model.stages - 1]
        self._model = model
        self._stage = stage
        ticks = lcm(
            period.denominator,
            model.factors[stage].seconds_per_work.denominator,
            *(link.latency_seconds.denominator for link in links),
            *(link.bytes_per_second.numerator for link in links),
        )
        self.unit_seconds = Fraction(1, ticks)
        self.period = int(period * ticks)

    def work_before(self, cuts: range) -> Integers:
        """Return the compute of all layers before each cut."""
        per_work = self._model.factors[self._stage].seconds_per_work / self.unit_seconds
        return self._model.work_before(self._stage, cuts).astype(object) * int(per_work)

    def transfers(self, boundary: int, cuts: range) -> Integers:
        """Return twice the transfer over each cut, forth and back: 2 X; none at the ends."""
        if boundary in {-1, self._model.stages - 1}:
            return np.zeros(len(cuts), dtype=object)
        link = self._model.links[boundary]
        per_byte = int(2 / link.bytes_per_second / self.unit_seconds)
        latency = int(2 * link.latency_seconds / self.unit_seconds)
        return self._model.bytes_over(cuts) * per_byte + latency


def _first_stops(starts: range, stops: range) -> NDArray[np.int64]:
    """Return for every start the number of the first stop behind it."""
    behind = np.arange(starts.start + 1, starts.stop + 1, dtype=np.int64) - stops.start
    return np.clip(behind, 0, len(stops))


def _stops_within_memory(
    model: CostModel, stage: int, starts: range, stops: range, limits: Limits
) -> NDArray[np.int64]:
    """Return for every start how many stops (from the band's first on) its memory allows."""
    limit = limits.memory(model, stage)
    after, before = model.memory_before(stage, stops), model.memory_before(stage, starts)
    return np.searchsorted(after, before + limit, side="right").astype(np.int64)


def _stops_within_work(
    model: CostModel, stage: int, starts: range, stops: range, limits: Limits
) -> tuple[NDArray[np.int64], Fraction | None]:
    """Return for every start how many stops its compute allows, and the next period."""
    limit = limits.work(model, stage)
    after, before = model.work_before(stage, stops), model.work_before(stage, starts)
    counts = np.searchsorted(after, before + limit, side="right").astype(np.int64)
    beyond = np.flatnonzero(counts < len(stops))
    if len(beyond) == 0:
        return counts, None
    work = int((after[counts[beyond]] - before[beyond]).min())
    return counts, work * model.factors[stage].seconds_per_work
