"""How many stages would do as well."""

from bisect import bisect_right
from fractions import Fraction

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.reach import Limits
from hpc_lpm.planning.search import cheapest_within


def fewest_stages(model: CostModel, period: Fraction) -> int | None:
    """Return the fewest stages, fewer than the model's, that reach `period` seconds.

    None if none do, or if options are given for each stage or boundary: nobody knows which of them
    fewer stages would have. Memory limits are kept. Numbers of stages are tried upwards, from that
    which filling each stage in turn needs where nothing is replayed; none below it can do.
    """
    for stages in range(_least_by_compute(model, period), model.stages):
        try:
            candidate = CostModel(model.profile, stages, model.options)
        except InputError:
            return None
        if cheapest_within(candidate, Limits(period)).cuts is not None:
            return stages
    return None


def _least_by_compute(model: CostModel, period: Fraction) -> int:
    """Return the fewest stages by compute alone, each like the last one: that replays nothing."""
    last = model.stages - 1
    most = model.work_within(last, period)
    stages, start = 0, 0
    while start < model.layers:
        done = model.work(last, 0, start)
        stop = bisect_right(range(model.layers + 1), done + most, key=lambda cut: _to(model, cut))
        start = max(start + 1, stop - 1)
        stages += 1
    return stages


def _to(model: CostModel, cut: int) -> int:
    return model.work(model.stages - 1, 0, cut)
