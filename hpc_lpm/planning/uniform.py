"""Planner `uniform`: as many layers in every stage, as DeepSpeed's partition method `uniform`."""

from hpc_lpm.planning.cost import CostModel


def uniform_cuts(model: CostModel) -> tuple[int, ...]:
    """Return cuts with stages of floor(L / K) layers, the first L mod K of them one longer."""
    size, longer = divmod(model.layers, model.stages)
    return tuple(stage * size + min(stage, longer) for stage in range(model.stages + 1))
