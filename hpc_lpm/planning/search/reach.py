"""Greedy bounds on where cuts can lie, from compute and memory alone.

Compute and memory of a stage only grow when it gains a layer. So filling every stage from the
front as far as it goes bounds every cut from above, and filling from the back bounds it from below.
Near the least period the two bounds nearly meet, which is what makes the search of `search`
cheap: it looks only between them. The greedy probe is the classic one of chains-on-chains
partitioning (Pinar and Aykanat, 2004), here with different devices and a memory limit each.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.search.relaxed_transfers import relaxed_transfers

_FIRST_STEP = Fraction(1, 2**6)
_SMALLEST_STEP = Fraction(1, 2**40)
_CLOSE = Fraction(1, 2**20)
_AHEAD = Fraction(1, 2**30)


@dataclass(frozen=True)
class Limits:
    """The period in seconds and the bytes that stages may take, besides the model's own limits.

    None stands for no limit.
    """

    period: Fraction | None
    memory_bytes: int | None = None

    def work(self, model: CostModel, stage: int) -> int:
        """Return the most work of `stage`, never more than all layers ask for."""
        everything = model.work(stage, 0, model.layers)
        if self.period is None:
            return everything
        return min(everything, model.work_within(stage, self.period))

    def memory(self, model: CostModel, stage: int) -> int:
        """Return the most bytes of `stage`, never more than all layers ask for."""
        everything = model.memory_bytes(stage, 0, model.layers)
        limits = (everything, model.factors[stage].memory_limit_bytes, self.memory_bytes)
        return min(limit for limit in limits if limit is not None)


@dataclass(frozen=True)
class Reach:
    """Bounds on cuts: after k stages the cut lies in [lowest[k], highest[k]], k = 0 to K.

    `feasible` is False if no plan can be within the limits; True promises nothing. `next_period`
    is a period below which the bounds stay as they are, None if no period changes them.
    """

    lowest: list[int]
    highest: list[int]
    feasible: bool
    next_period: Fraction | None


def reach(model: CostModel, limits: Limits) -> Reach:
    """Return the bounds of all cuts within `limits`, in O(K log L).

    Where transfers do not overlap they count as well, see `relaxed_transfers`.
    """
    if model.overlap or limits.period is None:
        return _reach_by_compute(model, limits)
    memory = [limits.memory(model, stage) for stage in range(model.stages)]
    relaxed = relaxed_transfers(model)
    # Rounded bounds do not tell when they change, so they are taken for a slightly longer period.
    longer = limits.period * (1 + _AHEAD)
    return _reach(model, relaxed.lowest(longer, memory), relaxed.highest(longer, memory), longer)


def least_relaxed_period(model: CostModel) -> Fraction:
    """Return a lower bound on the period of any plan, about the least with a feasible `reach`.

    The model has to have a plan within its memory limits.
    """
    low = _least_by_compute(model)
    if model.overlap:
        return low
    high, step = low, first_step(model, low, _FIRST_STEP)
    while not reach(model, Limits(high)).feasible:
        low, high, step = high, high + step, 2 * step
    while high - low > high * _CLOSE:
        middle = (low + high) / 2
        if reach(model, Limits(middle)).feasible:
            high = middle
        else:
            low = middle
    return low


def first_step(model: CostModel, low: Fraction, share: Fraction) -> Fraction:
    """Return the step with which to feel upwards from `low`: a share of it, but never next to 0."""
    return max(low * share, _longest_period(model) * _SMALLEST_STEP)


def _longest_period(model: CostModel) -> Fraction:
    """Return an upper bound on the period of any plan."""
    compute = max(model.compute_seconds(stage, 0, model.layers) for stage in range(model.stages))
    largest = max(model.cut_bytes)
    return compute + 4 * max((link.seconds(largest) for link in model.links), default=Fraction(0))


def _least_by_compute(model: CostModel) -> Fraction:
    low = Fraction(0)
    high = max(model.compute_seconds(stage, 0, model.layers) for stage in range(model.stages))
    while low < high:
        found = _reach_by_compute(model, Limits((low + high) / 2))
        if found.feasible:
            high = max(
                model.compute_seconds(stage, start, stop)
                for stage, (start, stop) in enumerate(pairwise(found.highest))
            )
        else:
            low = high if found.next_period is None else found.next_period
    return high


def _reach_by_compute(model: CostModel, limits: Limits) -> Reach:
    highest, after = _from_the_front(model, limits)
    lowest, before = _from_the_back(model, limits)
    periods = [period for period in (after, before) if period is not None]
    return _reach(model, lowest, highest, min(periods, default=None))


def _reach(
    model: CostModel, lowest: list[int], highest: list[int], next_period: Fraction | None
) -> Reach:
    stages, layers = model.stages, model.layers
    lowest = [max(k, cut) for k, cut in enumerate(lowest)]
    highest = [min(layers - stages + k, cut) for k, cut in enumerate(highest)]
    feasible = all(low <= high for low, high in zip(lowest, highest, strict=True))
    return Reach(lowest, highest, feasible, next_period)


def _from_the_front(model: CostModel, limits: Limits) -> tuple[list[int], Fraction | None]:
    cuts = [0]
    following: list[Fraction] = []
    for stage in range(model.stages):
        start = cuts[-1]
        last = model.layers - (model.stages - 1 - stage)
        sums = model.work_sums(stage)
        most = sums[start] + limits.work(model, stage)
        by_work = bisect_right(sums, most, start, last + 1) - 1
        # Whether memory allows more than a layer beyond that does not matter.
        by_memory = _furthest(
            partial(model.memory_bytes, stage, start),
            range(start, min(by_work + 1, last) + 1),
            limits.memory(model, stage),
        )
        if by_work < min(by_memory, last):
            following.append(model.compute_seconds(stage, start, by_work + 1))
        cuts.append(min(by_work, by_memory))
    return cuts, min(following, default=None)


def _from_the_back(model: CostModel, limits: Limits) -> tuple[list[int], Fraction | None]:
    cuts = [model.layers]
    following: list[Fraction] = []
    for stage in reversed(range(model.stages)):
        stop = cuts[-1]
        sums = model.work_sums(stage)
        least = sums[stop] - limits.work(model, stage)
        by_work = bisect_left(sums, least, stage, stop)
        by_memory = _furthest(
            partial(_from_stop, model.memory_bytes, stage, stop),
            range(stop, max(by_work - 1, stage) - 1, -1),
            limits.memory(model, stage),
        )
        if by_work > max(by_memory, stage):
            following.append(model.compute_seconds(stage, by_work - 1, stop))
        cuts.append(max(by_work, by_memory))
    return cuts[::-1], min(following, default=None)


def _furthest(cost: Callable[[int], int], positions: range, limit: int) -> int:
    """Return the last of `positions`, along which `cost` grows from 0, within `limit`."""
    if cost(positions[-1]) <= limit:
        return positions[-1]
    return positions[bisect_right(positions, limit, key=cost) - 1]


def _from_stop(cost: Callable[[int, int, int], int], stage: int, stop: int, start: int) -> int:
    return cost(stage, start, stop)
