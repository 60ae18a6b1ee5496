"""Search for the plan with the fewest boundary bytes within a period and memory limits."""

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.exact_integers import Integers, integers
from hpc_lpm.planning.search.arcs import FullArcs, WindowArcs
from hpc_lpm.planning.search.reach import Limits, reach

_PAIRS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Cheapest:
    """Cuts with the least boundary bytes, the lexicographically smallest of those; None if none.

    `unique` tells that no other cuts have as few, `search` knows all that have. `next_period` is a
    period below which there are no such cuts either, None if no period allows any.
    """

    cuts: tuple[int, ...] | None
    unique: bool
    next_period: Fraction | None
    search: "Search | None" = None


def cheapest_within(model: CostModel, limits: Limits) -> Cheapest:
    """Return the plan of least boundary bytes V within `limits`.

    Dynamic programme from the last stage to the first, over the bands of `reach` alone:
    V(k, i) = least over the stops j of [i, j) at stage k of output bytes at j + V(k + 1, j).
    With overlapped transfers a stage costs O(w log w) for a band of w cuts, otherwise O(w log^2 w).
    """
    bounds = reach(model, limits)
    if not bounds.feasible:
        return Cheapest(None, False, bounds.next_period)
    none = sum(model.cut_bytes) + 1
    arcs_of = WindowArcs if model.overlap else FullArcs
    bands = [range(low, high + 1) for low, high in zip(bounds.lowest, bounds.highest, strict=True)]
    arcs: list[WindowArcs | FullArcs] = []
    continuations: list[Integers] = []
    leasts: list[Integers] = []
    crossings = integers(model.cut_bytes, 2 * none)
    values = integers([0], 2 * none)
    largest_messages = _largest_messages(model, limits)
    for stage in reversed(range(model.stages)):
        stops = bands[stage + 1]
        crossing = crossings[stops.start : stops.stop]
        if stage < len(largest_messages):
            crossing = np.where(crossing <= largest_messages[stage], crossing, none)
        values = np.minimum(values + crossing, none)
        continuations.append(values)
        arcs.append(arcs_of(model, stage, bands[stage], stops, limits=limits, none=none))
        values = arcs[-1].least_over_stops(values)
        leasts.append(values)
    least = int(values[0])
    if least == none:
        periods = [bounds.next_period, *(stage.next_period for stage in arcs)]
        if model.overlap:
            periods.append(_next_transfer(model, limits))
        return Cheapest(None, False, min((p for p in periods if p is not None), default=None))
    search = Search(model, bands, arcs[::-1], continuations[::-1], leasts[::-1])
    smallest = search.trace(choice=0)
    return Cheapest(smallest, smallest == search.trace(choice=-1), None, search)


@dataclass(frozen=True)
class Search:
    """What the dynamic programme has found at each stage.

    `continuations` are the least bytes from each stop on, `leasts` those from each start on.
    """

    model: CostModel
    bands: list[range]
    arcs: list[WindowArcs | FullArcs]
    continuations: list[Integers]
    leasts: list[Integers]

    def trace(self, choice: int) -> tuple[int, ...]:
        """Follow best stops from the front, of equally good ones the first (0) or last (-1)."""
        cuts = [0]
        remaining = int(self.leasts[0][0])
        for stage in range(self.model.stages):
            stops = self.arcs[stage].stops_of(cuts[-1] - self.bands[stage].start)
            best = stops[np.flatnonzero(self.continuations[stage][stops] == remaining)]
            cuts.append(self.bands[stage + 1].start + int(best[choice]))
            remaining -= self.model.cut_bytes[cuts[-1]]
        return tuple(cuts)

    def least_memory_bytes(self) -> int:
        """Return the least memory of the fullest stage of all plans with so few boundary bytes.

        Dynamic programme from the last stage to the first, over the best stops j of each start i:
        Q(k, i) = least of max(bytes of [i, j) at stage k, Q(k + 1, j)). Every possible stage is
        looked at once; there are O(L^2) of them.
        """
        most = max(
            self.model.memory_bytes(stage, 0, self.model.layers)
            for stage in range(self.model.stages)
        )
        fullest = integers([0], 2 * most)
        for stage in reversed(range(self.model.stages)):
            starts, stops = self.bands[stage], self.bands[stage + 1]
            before = _bytes_before(self.model, stage, starts, most)
            until = _bytes_before(self.model, stage, stops, most)
            fullest = np.concatenate(
                [
                    self._fullest(stage, part, before, until, fullest, none=most + 1)
                    for part in _parts(len(starts), len(stops))
                ]
            )
        return int(fullest[0])

    def _fullest(
        self,
        stage: int,
        starts: slice,
        before: Integers,
        until: Integers,
        fullest: Integers,
        *,
        none: int,
    ) -> Integers:
        arcs, continuations = self.arcs[stage], self.continuations[stage]
        begins, ends = arcs.begins[starts], arcs.ends[starts]
        longest = max(1, int((ends - begins).max()))
        stops = np.minimum(begins[:, None] + np.arange(longest), len(until) - 1)
        best = continuations[stops] == self.leasts[stage][starts][:, None]
        sizes = np.maximum(until[stops] - before[starts][:, None], fullest[stops])
        least: Integers = np.where(best & arcs.possible(starts, stops), sizes, none).min(axis=1)
        return least


def _bytes_before(model: CostModel, stage: int, cuts: range, most: int) -> Integers:
    """Return what all layers before each cut would take at a stage."""
    sums = [model.memory_bytes(stage, 0, cut) for cut in cuts]
    return integers(sums, 2 * most)


def _parts(starts: int, stops: int) -> list[slice]:
    """Return slices of starts, so few that pairs with all stops are no burden at once."""
    size = max(1, _PAIRS_AT_ONCE // stops)
    return [slice(first, first + size) for first in range(0, starts, size)]


def _largest_messages(model: CostModel, limits: Limits) -> list[int]:
    """Return the bytes that can cross each boundary in a period where transfers overlap.

    There is none where any number can.
    """
    if not model.overlap or limits.period is None:
        return []
    within: dict[int, int] = {}
    for link in model.links:
        if id(link) not in within:
            within[id(link)] = link.bytes_within(limits.period)
    return [within[id(link)] for link in model.links]


def _next_transfer(model: CostModel, limits: Limits) -> Fraction | None:
    """Return the shortest transfer that is too long for the period."""
    if limits.period is None:
        return None
    sizes = sorted(model.cut_bytes[1:-1])
    longer = []
    for link in set(model.links):
        larger = bisect_right(sizes, link.bytes_within(limits.period))
        if larger < len(sizes):
            longer.append(link.seconds(sizes[larger]))
    return min(longer, default=None)
