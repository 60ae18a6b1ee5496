"""Search for the plan with the fewest boundary bytes within a period and memory limits."""

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.exact_integers import Integers, integers
from hpc_lpm.planning.search.arcs import FullArcs, WindowArcs
from hpc_lpm.planning.search.reach import Limits, reach


@dataclass(frozen=True)
class Cheapest:
    """Cuts with the least boundary bytes, the lexicographically smallest of those; None if none.

    `unique` tells that no other cuts have as few. `next_period` is a period below which there are
    no such cuts either, None if no period allows any.
    """

    cuts: tuple[int, ...] | None
    boundary_bytes: int
    unique: bool
    next_period: Fraction | None


def cheapest_within(model: CostModel, limits: Limits) -> Cheapest:
    """Return the plan of least boundary bytes V within `limits`.

    Dynamic programme from the last stage to the first, over the bands of `reach` alone:
    V(k, i) = least over the stops j of [i, j) at stage k of output bytes at j + V(k + 1, j).
    With overlapped transfers a stage costs O(w log w) for a band of w cuts, otherwise O(w log^2 w).
    """
    bounds = reach(model, limits)
    if not bounds.feasible:
        return Cheapest(None, 0, False, bounds.next_period)
    none = sum(model.cut_bytes) + 1
    arcs_of = WindowArcs if model.overlap else FullArcs
    bands = [range(low, high + 1) for low, high in zip(bounds.lowest, bounds.highest, strict=True)]
    arcs: list[WindowArcs | FullArcs] = []
    continuations: list[Integers] = []
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
    least = int(values[0])
    if least == none:
        periods = [bounds.next_period, *(stage.next_period for stage in arcs)]
        if model.overlap:
            periods.append(_next_transfer(model, limits))
        return Cheapest(None, 0, False, min((p for p in periods if p is not None), default=None))
    arcs.reverse()
    continuations.reverse()
    smallest = _trace(model, bands, arcs, continuations, least=least, choice=0)
    largest = _trace(model, bands, arcs, continuations, least=least, choice=-1)
    return Cheapest(smallest, least, smallest == largest, None)


def _trace(
    model: CostModel,
    bands: list[range],
    arcs: list[WindowArcs | FullArcs],
    continuations: list[Integers],
    *,
    least: int,
    choice: int,
) -> tuple[int, ...]:
    """Follow best stops from the front, of equally good ones the first (0) or the last (-1)."""
    cuts = [0]
    remaining = least
    for stage in range(model.stages):
        stops = arcs[stage].stops_of(cuts[-1] - bands[stage].start)
        best = stops[np.flatnonzero(continuations[stage][stops] == remaining)]
        cuts.append(bands[stage + 1].start + int(best[choice]))
        remaining -= model.cut_bytes[cuts[-1]]
    return tuple(cuts)


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
