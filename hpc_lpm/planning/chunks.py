"""Evens out devices that hold several chunks of a model, by moving cuts."""

from fractions import Fraction
from itertools import pairwise

from hpc_lpm.planning.cost import CostModel

Merit = tuple[Fraction, Fraction, Fraction, int]


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
    best, merit = cuts, _merit(model, cuts)
    improved = True
    while improved:
        improved = False
        for moved in _neighbours(best):
            if _is_allowed(model, moved) and (found := _merit(model, moved)) < merit:
                best, merit, improved = moved, found, True
                break
    return best


def _merit(model: CostModel, cuts: tuple[int, ...]) -> Merit:
    """Return what is to be made small."""
    of_stages = [
        model.compute_seconds(stage, start, stop)
        for stage, (start, stop) in enumerate(pairwise(cuts))
    ]
    return (
        model.device_period(cuts),
        _squares(model.device_seconds(cuts)),
        _squares(of_stages),
        model.boundary_bytes(cuts),
    )


def _squares(seconds: list[Fraction]) -> Fraction:
    """Return the sum of squares, which is the smaller the more even numbers of one sum are."""
    return sum((each * each for each in seconds), Fraction(0))


def _neighbours(cuts: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return all cuts that differ in one place or two by a layer."""
    places = range(1, len(cuts) - 1)
    moves = [(place, step) for place in places for step in (-1, 1)]
    found = [_moved(cuts, move) for move in moves]
    found += [_moved(cuts, one, other) for one in moves for other in moves if one[0] < other[0]]
    return [each for each in found if all(a < b for a, b in pairwise(each))]


def _moved(cuts: tuple[int, ...], *moves: tuple[int, int]) -> tuple[int, ...]:
    changed = list(cuts)
    for place, step in moves:
        changed[place] += step
    return tuple(changed)


def _is_allowed(model: CostModel, cuts: tuple[int, ...]) -> bool:
    return all(
        limit is None or model.memory_bytes(stage, start, stop) <= limit
        for stage, (start, stop) in enumerate(pairwise(cuts))
        for limit in (model.factors[stage].memory_limit_bytes,)
    )
