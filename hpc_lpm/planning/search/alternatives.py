"""What would do instead: other memory limits, more stages that fit, fewer that are as fast."""

from bisect import bisect_right
from fractions import Fraction
from itertools import pairwise

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.search.cheapest import cheapest_within
from hpc_lpm.planning.search.reach import Limits, reach


def infeasible_memory(model: CostModel) -> InputError:
    """Return the error for a model that has no plan within its memory limits.

    It names the fullest of the stages beyond their limits in the plan whose fullest stage holds
    least, the limit that would do for every stage, and the fewest stages that would do with the
    present limit (where one limit holds for all stages).
    """
    unlimited = _with(model, model.stages, None)
    limit = least_memory_limit(unlimited)
    cuts = cheapest_within(unlimited, Limits(None, limit)).cuts
    if cuts is None:
        raise RuntimeError("no plan at a memory limit for which one was found before")
    layers = model.profile.layers
    needed, stage, allowed = max(
        (needed, stage, allowed)
        for stage, (start, stop) in enumerate(pairwise(cuts))
        if (allowed := model.factors[stage].memory_limit_bytes) is not None
        and (needed := model.memory_bytes(stage, start, stop)) > allowed
    )
    start, stop = cuts[stage : stage + 2]
    chunks = model.placement.chunks
    remedies = [f"a memory limit of {limit * chunks:,} bytes would do"]
    if (stages := _fewest_within_memory(model)) is not None:
        remedies.append(f"so would {stages // chunks} stages")
    what, share = "stage", "its limit"
    if chunks > 1:
        what, share = "chunk", f"its share of the limit, one of {chunks},"
    return InputError(
        f"no plan of {model.placement.devices} stages is within the memory limits: {what} {stage} "
        f"(layers {layers[start].name} to {layers[stop - 1].name}) needs {needed:,} bytes and "
        f"{share} is {allowed:,}; {', '.join(remedies)}."
    )


def _with(model: CostModel, stages: int, limit: int | None) -> CostModel:
    """Return the model with other stages and one limit; speeds and links play no part in it."""
    update = {"memory_limit": limit, "speeds": None, "links": None}
    options = model.options.model_copy(update=update)
    return CostModel(model.profile, stages, options)


def least_memory_limit(unlimited: CostModel) -> int:
    """Return the least limit, one for all stages, that allows a plan of a model without any."""
    low, high = 0, unlimited.memory_bytes(0, 0, unlimited.layers)
    while low < high:
        middle = (low + high) // 2
        cuts = cheapest_within(unlimited, Limits(None, middle)).cuts
        if cuts is None:
            low = middle + 1
        else:
            high = unlimited.largest_memory_bytes(cuts)
    return high


def _fewest_within_memory(model: CostModel) -> int | None:
    """Return the fewest stages, more than now, that one limit for all allows; None if none do."""
    limit = model.options.memory_limit
    if not isinstance(limit, int):
        return None
    chunks = model.placement.chunks
    for stages in range(model.stages + chunks, model.layers + 1, chunks):
        try:
            candidate = _with(model, stages, limit)
        except InputError:
            # A table has one number of stages, and two buffers are too few for many more.
            return None
        if reach(candidate, Limits(None)).feasible and (
            cheapest_within(candidate, Limits(None)).cuts is not None
        ):
            return stages
    return None


def fewest_stages(model: CostModel, period: Fraction) -> int | None:
    """Return the fewest stages, fewer than the model's, that reach `period` seconds.

    None if none do, or if options are given for each stage or boundary, of which fewer stages would
    have an unknown part. Memory limits are kept. Numbers of stages are tried upwards, beginning
    with the number that filling each stage in turn needs where nothing is replayed; no smaller
    number can do.
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
    """Return the fewest stages by compute alone, as if nothing were replayed in any of them."""
    last = model.stages - 1
    most = model.work_within(last, period)
    work = [model.factors[last].backward * time for time in model.layer_time_sums()]
    stages, start = 0, 0
    while start < model.layers:
        start = max(start + 1, bisect_right(work, work[start] + most) - 1)
        stages += 1
    return stages
