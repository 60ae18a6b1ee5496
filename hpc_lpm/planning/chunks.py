"""Evens out devices that hold several chunks of a model, by moving cuts.

Hill climbing, which takes the first in order of all moves that improve. Moves that share no device
do each what they do alone, and a pair of such moves improves only if one of them does, or if each
shortens the passes of another device that is among the busiest. So of all pairs only those few are
tried, and again only where a device has changed since.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import product

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.device_loads import DeviceLoads, Move, Moves

_STEPS = (-1, 1)


def evened_out(model: CostModel, cuts: tuple[int, ...]) -> tuple[int, ...]:
    """Return cuts under which the busiest device takes as little time as moving cuts can reach.

    Planners even out the stages. Where devices hold several, an uneven chunk may make up for
    another one: cuts are moved by a layer, one or two at a time, for as long as the period of the
    devices becomes shorter, or as long with less variance among devices, then among stages, which
    wait for each other, or at that with fewer bytes over the boundaries (hill climbing). Memory
    limits are kept. One stage on each device stays as it is.
    """
    if model.placement.chunks == 1:
        return cuts
    loads = DeviceLoads(model, cuts)
    waiting = _Waiting(loads)
    busiest = loads.busiest()
    while (moves := waiting.first()) is not None:
        change = loads.change(moves)
        if change is None:
            continue
        loads.apply(change)
        waiting.add_places(loads.places_of(change.devices))
        before, busiest = busiest, loads.busiest()
        if busiest.keys() != before.keys() or len(busiest) > 1:
            waiting.add_busiest(busiest)
    return tuple(loads.cuts)


class _Waiting:
    """The moves and pairs of moves that may improve, in order: single ones before pairs.

    Moves are in order of their places, and at each place down before up; pairs are in order of
    their first and then their second.
    """

    def __init__(self, loads: DeviceLoads) -> None:
        self._loads = loads
        self._moves: list[Moves] = []
        self._held: set[Moves] = set()
        self._unpaired: set[int] = set()
        self._pairs: list[Moves] = []
        self.add_places(range(1, len(loads.cuts) - 1))
        self.add_busiest(loads.busiest())

    def add_places(self, places: Iterable[int]) -> None:
        """Add all moves of the cuts at some places, alone and in pairs."""
        for place in places:
            for step in _STEPS:
                self._add(self._moves, ((place, step),))
            self._unpaired.add(place)

    def add_busiest(self, busiest: Mapping[int, Collection[int]]) -> None:
        """Add all moves at the places that the busiest devices and links have, also in pairs."""
        self.add_places({place for places in busiest.values() for place in places})
        if len(busiest) > 1:
            one, *others = busiest.values()
            for first, second in product(one, {place for places in others for place in places}):
                self._add_pairs(first, second)

    def first(self) -> Moves | None:
        """Take out the first of all, None if there is none."""
        if not self._moves:
            for place in self._unpaired:
                for partner in self._loads.partners(place):
                    self._add_pairs(place, partner)
            self._unpaired.clear()
        found = self._moves or self._pairs
        if not found:
            return None
        moves = heappop(found)
        self._held.discard(moves)
        return moves

    def _add_pairs(self, place: int, other: int) -> None:
        if place == other:
            return
        for moves in _pairs(min(place, other), max(place, other)):
            self._add(self._pairs, moves)

    def _add(self, heap: list[Moves], moves: Moves) -> None:
        if moves not in self._held:
            self._held.add(moves)
            heappush(heap, moves)


def _pairs(place: int, other: int) -> Iterator[tuple[Move, Move]]:
    """Yield the ways to move the cuts at two places."""
    for step, further in product(_STEPS, _STEPS):
        yield (place, step), (other, further)
