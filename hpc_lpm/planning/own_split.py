"""A split of the user's own: cuts that are given instead of searched."""

from collections.abc import Sequence
from itertools import pairwise

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.cut_names import CUTS

OWN = "own"
"""The planner's name in the plan of a split of the user's own."""


def check_within_limits(model: CostModel, cuts: Sequence[int]) -> None:
    """Refuse a split of which a stage exceeds its memory limit.

    Raises:
        InputError: naming the first such stage.
    """
    layers = model.profile.layers
    for stage, (start, stop) in enumerate(pairwise(cuts)):
        limit = model.factors[stage].memory_limit_bytes
        needed = model.memory_bytes(stage, start, stop)
        if limit is not None and needed > limit:
            raise InputError(
                f"stage {stage} of {CUTS} (layers {layers[start].name} to {layers[stop - 1].name}) "
                f"needs {needed:,} bytes and its limit is {limit:,}: raise the limit, cut "
                f"elsewhere, or leave {CUTS} out to have cuts within the limit searched."
            )
