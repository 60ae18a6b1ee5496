"""The planners by name. A new one is a file beside this one and a line in `PLANNERS`."""

from collections.abc import Callable
from dataclasses import dataclass

from hpc_lpm.errors import look_up
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.planners.deepspeed import parameters_cuts, uniform_cuts
from hpc_lpm.planning.planners.greedy import greedy_cuts
from hpc_lpm.planning.planners.lpm import optimal_cuts
from hpc_lpm.planning.planners.pipedream import pipedream_cuts


@dataclass(frozen=True)
class Planner:
    """A way to choose the K+1 cut positions; every planner's cuts are priced by the same model."""

    name: str
    description: str
    cuts: Callable[[CostModel], tuple[int, ...]]


PLANNERS: dict[str, Planner] = {
    planner.name: planner
    for planner in (
        Planner("lpm", "least period, then least bytes, then least memory; exact", optimal_cuts),
        Planner("uniform", "equally many layers a stage", uniform_cuts),
        Planner("parameters", "parameters spread evenly over stages", parameters_cuts),
        Planner("greedy", "layers moved between stages until they are about even", greedy_cuts),
        Planner("pipedream", "fastest slowest stage, transfers and memory ignored", pipedream_cuts),
    )
}


def planner_named(name: str) -> Planner:
    """Return a planner by its name.

    Raises:
        InputError: if there is none of that name.
    """
    return look_up("planner", name, PLANNERS)
