"""For how long devices compute and links carry, kept up to date while cuts are moved.

All is exact: times are integers, in the largest unit that divides them all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from heapq import heapify, heappop, heappush
from math import gcd, lcm

from hpc_lpm.planning.cost import CostModel

Move = tuple[int, int]
"""The place of a cut, and by how many layers it is moved."""
Moves = tuple[Move, ...]

_NO_GAIN = (0, 0, 0)


@dataclass(frozen=True)
class Change:
    """What some moves change: the new cuts by place, and the new loads by number."""

    cuts: Mapping[int, int]
    stages: Mapping[int, int]
    devices: Mapping[int, int]
    spots: Mapping[int, int]


class DeviceLoads:
    """The stages, devices and links of a plan with chunks, and how busy they are.

    What may set the period is a spot: each device, first device first, and where transfers overlap
    each pair of devices between which stages are cut. Where transfers do not overlap, the devices
    at both ends are busy with them.

    Attributes:
        cuts: the K + 1 positions.
    """

    def __init__(self, model: CostModel, cuts: Sequence[int]) -> None:
        self.cuts = list(cuts)
        self.partners = cache(self._partners)
        self._model, placement = model, model.placement
        self._device = [placement.device(stage) for stage in range(model.stages)]
        self._work = [model.work_sums(stage) for stage in range(model.stages)]
        self._lay_spots(placement.devices)
        self._choose_units()
        self._stages = [
            self._seconds(stage, self.cuts[stage], self.cuts[stage + 1])
            for stage in range(model.stages)
        ]
        self._devices = [sum(self._stages[stage] for stage in held) for held in placement.held]
        self._spots = [0] * len(self._touching)
        for device, seconds in enumerate(self._devices):
            self._spots[device] = seconds * self._in_spots
        for boundary, spots in enumerate(self._carrying):
            for spot in spots:
                self._spots[spot] += self._carried(boundary, self.cuts[boundary + 1])
        self._at: dict[int, set[int]] = {}
        self._by_load: list[tuple[int, int]] = []
        for spot, load in enumerate(self._spots):
            self._at.setdefault(load, set()).add(spot)
            self._by_load.append((-load, spot))
        heapify(self._by_load)

    def _lay_spots(self, devices: int) -> None:
        """Number the spots, and note where moves change each."""
        overlap = self._model.overlap
        numbers: dict[frozenset[int], int] = {}
        self._carrying: list[tuple[int, ...]] = []
        self._touching: list[set[int]] = [set() for _ in range(devices)]
        for boundary in range(self._model.stages - 1):
            ends = self._device[boundary], self._device[boundary + 1]
            spots: tuple[int, ...] = ends if ends[0] != ends[1] else ()
            if spots and overlap:
                # As much goes up a link as down, so that one spot stands for both ways.
                spots = (numbers.setdefault(frozenset(ends), devices + len(numbers)),)
                self._touching += [set() for _ in range(spots[0] + 1 - len(self._touching))]
            self._carrying.append(spots)
            for spot in {*ends, *spots}:
                self._touching[spot].add(boundary + 1)
        # Two moves change four devices, and two links between them.
        self._most_changed = 6 if overlap else 4

    def _choose_units(self) -> None:
        """Choose the units of computing, and of what is compared with the period."""
        per_work = [factors.seconds_per_work for factors in self._model.factors]
        links = self._model.links
        computing = _unit(per_work)
        unit = _unit(
            [
                computing,
                *{link.latency_seconds for link in links},
                *{1 / link.bytes_per_second for link in links},
            ]
        )
        self._per_work = [int(each / computing) for each in per_work]
        self._in_spots = int(computing / unit)
        # A device that moves the bytes itself is busy with activations and with gradients.
        times = 1 if self._model.overlap else 2
        self._latency = [times * int(link.latency_seconds / unit) for link in links]
        self._per_byte = [times * int(1 / link.bytes_per_second / unit) for link in links]

    def _partners(self, place: int) -> list[int]:
        """Return the other places at which moves change a device that one at `place` changes."""
        return sorted(self.places_of(self._device[place - 1 : place + 1]) - {place})

    def places_of(self, devices: Iterable[int]) -> set[int]:
        """Return the places of the cuts at which stages of some devices begin or end."""
        return {place for device in devices for place in self._touching[device]}

    def busiest(self) -> dict[int, set[int]]:
        """Return the spots that set the period, each with the places at which moves change it.

        There are none where they are too many for a pair of moves to change them all.
        """
        spots = self._at[self._period()]
        if len(spots) > self._most_changed:
            return {}
        return {spot: self._touching[spot] for spot in sorted(spots)}

    def change(self, moves: Moves) -> Change | None:
        """Return what moves change, None if they are not allowed or improve nothing.

        What is to become small are the period, then the squares of the times of the devices and of
        the stages, which are the smaller the more even they are, then the bytes over boundaries.
        """
        cuts, crossing = self.cuts, self._model.cut_bytes
        moved = {place: cuts[place] + step for place, step in moves}
        stages: dict[int, int] = {}
        for stage in {stage for place in moved for stage in (place - 1, place)}:
            start = moved.get(stage, cuts[stage])
            stop = moved.get(stage + 1, cuts[stage + 1])
            if start >= stop or not self._fits(stage, start, stop):
                return None
            stages[stage] = self._seconds(stage, start, stop)
        devices: dict[int, int] = {}
        for stage, seconds in stages.items():
            device = self._device[stage]
            before = devices.get(device, self._devices[device])
            devices[device] = before + seconds - self._stages[stage]
        spots = {
            device: self._spots[device] + (seconds - self._devices[device]) * self._in_spots
            for device, seconds in devices.items()
        }
        for place, cut in moved.items():
            boundary = place - 1
            more = self._carried(boundary, cut) - self._carried(boundary, cuts[place])
            for spot in self._carrying[boundary]:
                spots[spot] = spots.get(spot, self._spots[spot]) + more
        period, longest = self._period(), max(spots.values())
        if longest > period:
            return None
        if longest == period or not self._at[period] <= spots.keys():
            gain = (
                sum(new * new - self._devices[each] ** 2 for each, new in devices.items()),
                sum(new * new - self._stages[each] ** 2 for each, new in stages.items()),
                sum(crossing[cut] - crossing[cuts[place]] for place, cut in moved.items()),
            )
            if gain >= _NO_GAIN:
                return None
        return Change(moved, stages, devices, spots)

    def apply(self, change: Change) -> None:
        """Carry out a change, of the cuts as they are."""
        for place, cut in change.cuts.items():
            self.cuts[place] = cut
        for stage, seconds in change.stages.items():
            self._stages[stage] = seconds
        for device, seconds in change.devices.items():
            self._devices[device] = seconds
        for spot, load in change.spots.items():
            self._at[self._spots[spot]].discard(spot)
            self._spots[spot] = load
            self._at.setdefault(load, set()).add(spot)
            heappush(self._by_load, (-load, spot))

    def _period(self) -> int:
        """Return the largest load of a spot."""
        while True:
            load, spot = -self._by_load[0][0], self._by_load[0][1]
            if self._spots[spot] == load:
                return load
            heappop(self._by_load)

    def _seconds(self, stage: int, start: int, stop: int) -> int:
        work = self._work[stage]
        return (work[stop] - work[start]) * self._per_work[stage]

    def _carried(self, boundary: int, cut: int) -> int:
        """Return for how long a spot that carries a boundary is busy if it is cut there."""
        return self._latency[boundary] + self._model.cut_bytes[cut] * self._per_byte[boundary]

    def _fits(self, stage: int, start: int, stop: int) -> bool:
        limit = self._model.factors[stage].memory_limit_bytes
        return limit is None or self._model.memory_bytes(stage, start, stop) <= limit


def _unit(values: Iterable[Fraction]) -> Fraction:
    """Return the largest number that divides all values."""
    found = set(values)
    return Fraction(
        gcd(*(each.numerator for each in found)), lcm(*(each.denominator for each in found))
    )
