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
from hpc_lpm.planning.exact_integers import Column, Counted, Integers, WeightedSums, count_at_most
from hpc_lpm.planning.search.dominance import Queries, least_below, least_in_windows
from hpc_lpm.planning.search.reach import Limits


class WindowArcs:
    """Arcs where transfers overlap: the stops of a start are a window, moving on with the start.

    Cuts whose transfer takes longer than the period are left out by the search, not here.
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
        terms = model.work_terms(stage)
        self._limit = limits.work(model, stage)
        self._seconds_per_work = model.factors[stage].seconds_per_work
        self._by_work = count_at_most(
            WeightedSums(terms, stops), WeightedSums(terms, starts, self._limit), ascending=True
        )
        self.ends = np.minimum(by_memory, self._by_work.counts)
        self.begins = _first_stops(starts, stops)

    @property
    def next_period(self) -> Fraction | None:
        """A period below which the arcs stay as they are, None if none changes them."""
        gap = self._by_work.gap
        return None if gap is None else (self._limit + gap) * self._seconds_per_work

    def least_over_stops(self, values: Integers) -> Integers:
        """Return the least over the stops of every start."""
        return least_in_windows(values, self.begins, self.ends, self.none)

    def stops_of(self, start: int) -> NDArray[np.intp]:
        """Return the stops that `start` can have, ascending."""
        return np.arange(self.begins[start], self.ends[start])

    def possible(self, starts: slice, stops: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of a row of stops for each start of a slice it can have."""
        return _between(self.begins[starts], stops, self.ends[starts])


class FullArcs:
    """Arcs where transfers do not overlap: whether a stop is possible depends on both its ends.

    [start, stop) is possible if after(stop) <= before(start) + period, where after = work of all
    layers before stop + 2 X(stop) and before = work of all layers before start - 2 X(start).
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
        self._counted: Counted | None = None
        self._period = period = limits.period
        if period is None:
            self.ranks = np.arange(len(stops), dtype=np.int64)
            self.bounds = np.full(len(starts), len(stops), dtype=np.int64)
            return
        clock = _Clock(model, stage, period)
        after = WeightedSums([*clock.work, *clock.transfers(stage, 1)], stops, clock.latency(stage))
        needs = WeightedSums(
            [*clock.work, *clock.transfers(stage - 1, -1)],
            starts,
            clock.period - clock.latency(stage - 1),
        )
        self._counted = counted = count_at_most(after, needs, ascending=False)
        self._unit_seconds = clock.unit_seconds
        # Comparing ranks instead of times is what keeps the search cheap.
        self.ranks = np.empty(len(stops), dtype=np.int64)
        self.ranks[counted.order] = np.arange(len(stops))
        self.bounds = counted.counts

    @property
    def next_period(self) -> Fraction | None:
        """A period below which the arcs stay as they are, None if none changes them."""
        if self._period is None or self._counted is None or self._counted.gap is None:
            return None
        return self._period + self._counted.gap * self._unit_seconds

    def least_over_stops(self, values: Integers) -> Integers:
        """Return the least over the stops of every start."""
        return least_below(
            values, self.ranks, Queries(self.begins, self.ends, self.bounds), self.none
        )

    def stops_of(self, start: int) -> NDArray[np.intp]:
        """Return the stops that `start` can have, ascending."""
        window = self.ranks[self.begins[start] : self.ends[start]]
        stops: NDArray[np.intp] = self.begins[start] + np.flatnonzero(window < self.bounds[start])
        return stops

    def possible(self, starts: slice, stops: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of a row of stops for each start of a slice it can have."""
        in_time = self.ranks[stops] < self.bounds[starts][:, None]
        within: NDArray[np.bool_] = in_time & _between(
            self.begins[starts], stops, self.ends[starts]
        )
        return within


class _Clock:
    """Times at one stage as whole numbers of a unit that divides all of them."""

    def __init__(self, model: CostModel, stage: int, period: Fraction) -> None:
        links = [model.links[at] for at in (stage - 1, stage) if 0 <= at < model.stages - 1]
        self._model = model
        ticks = lcm(
            period.denominator,
            model.factors[stage].seconds_per_work.denominator,
            *(link.latency_seconds.denominator for link in links),
            *(link.bytes_per_second.numerator for link in links),
        )
        self.unit_seconds = Fraction(1, ticks)
        self.period = int(period * ticks)

        per_work = int(model.factors[stage].seconds_per_work * ticks)
        self.work = [(per_work * weight, column) for weight, column in model.work_terms(stage)]

    def transfers(self, boundary: int, sign: int) -> list[tuple[int, Column]]:
        """Return 2 X without its latency, forth and back; nothing at the ends of the pipeline."""
        if boundary in {-1, self._model.stages - 1}:
            return []
        per_byte = 2 / self._model.links[boundary].bytes_per_second / self.unit_seconds
        return [(sign * int(per_byte), self._model.crossing)]

    def latency(self, boundary: int) -> int:
        """Return the latency in 2 X; none at the ends of the pipeline."""
        if boundary in {-1, self._model.stages - 1}:
            return 0
        return int(2 * self._model.links[boundary].latency_seconds / self.unit_seconds)


def _between(
    begins: NDArray[np.int64], stops: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.bool_]:
    between: NDArray[np.bool_] = (begins[:, None] <= stops) & (stops < ends[:, None])
    return between


def _first_stops(starts: range, stops: range) -> NDArray[np.int64]:
    """Return for every start the number of the first stop behind it."""
    behind = np.arange(starts.start + 1, starts.stop + 1, dtype=np.int64) - stops.start
    return np.minimum(np.maximum(behind, 0), len(stops))


def _stops_within_memory(
    model: CostModel, stage: int, starts: range, stops: range, limits: Limits
) -> NDArray[np.int64]:
    """Return for every start how many stops (from the band's first on) its memory allows."""
    limit = limits.memory(model, stage)
    if starts and stops and model.memory_bytes(stage, starts[0], stops[-1]) <= limit:
        return np.full(len(starts), len(stops), dtype=np.int64)
    terms = model.memory_terms(stage)
    return count_at_most(
        WeightedSums(terms, stops), WeightedSums(terms, starts, limit), ascending=True
    ).counts
