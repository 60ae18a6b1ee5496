"""The planners by name. A new one is a file beside this one and a line in `PLANNERS`."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from inspect import getdoc
from itertools import pairwise
from typing import cast

from hpc_lpm.errors import InputError
from hpc_lpm.extensions import Registry, expect_type
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.planners.deepspeed import parameters_cuts, uniform_cuts
from hpc_lpm.planning.planners.greedy import greedy_cuts
from hpc_lpm.planning.planners.lpm import optimal_cuts
from hpc_lpm.planning.planners.pipedream import pipedream_cuts
from hpc_lpm.user_functions import user_function

Cuts = Callable[[CostModel], tuple[int, ...]]


@dataclass(frozen=True)
class Planner:
    """A way to choose the K+1 cut positions; every planner's cuts are priced by the same model.

    `cuts` raises an `InputError` where it finds none; of the toolkit's planners `lpm` alone looks
    at memory limits.
    """

    name: str
    description: str
    cuts: Cuts


def _adapt(name: str, found: object) -> Planner:
    """Return a user's planner, which may be simply a function from a cost model to cuts."""
    if callable(found) and not isinstance(found, type | Planner):
        described = (getdoc(found) or "").partition("\n")[0] or "a planner of your own"
        return Planner(name, described, _checked(name, found))
    planner = expect_type("planner", name, found, Planner)
    return Planner(name, planner.description, _checked(name, planner.cuts))


def _checked(name: str, found: object) -> Cuts:
    """Return the function of a user's planner, whose mistakes come back as a sentence.

    Raises:
        InputError: if it is no function that takes a cost model.
    """
    returns = "the positions at which it cuts"
    function = user_function("planner", name, found, "model", returns)

    def positions(model: CostModel) -> tuple[int, ...]:
        """Read the positions, which a generator has yet to compute."""
        return tuple(operator.index(cut) for cut in function(model))  # type: ignore[attr-defined]

    guarded = user_function("planner", name, positions, "model", returns)

    def cuts(model: CostModel) -> tuple[int, ...]:
        found = cast(tuple[int, ...], guarded(model))
        ascending = all(start < stop for start, stop in pairwise(found))
        ends = (found[0], found[-1]) if found else ()
        if len(found) != model.stages + 1 or not ascending or ends != (0, model.layers):
            raise InputError(
                f"planner {name!r} cut at {list(found)}, accepted for {model.stages} "
                f"stages of {model.layers} layers are {model.stages + 1} ascending positions from "
                f"0 to {model.layers}: mend the planner."
            )
        return found

    return cuts


PLANNERS: Registry[Planner] = Registry(
    "planner",
    "hpc_lpm.planners",
    {
        planner.name: planner
        for planner in (
            Planner(
                "lpm", "least period, then least bytes, then least memory; exact", optimal_cuts
            ),
            Planner("uniform", "the same number of layers in every stage", uniform_cuts),
            Planner("parameters", "parameters spread evenly over stages", parameters_cuts),
            Planner("greedy", "layers moved between stages until they are about even", greedy_cuts),
            Planner(
                "pipedream",
                "shortest time of the slowest stage; transfers and memory are ignored",
                pipedream_cuts,
            ),
        )
    },
    _adapt,
)


DEFAULT_PLANNER = "lpm"
"""The planner that is used where none is asked for, and the only one that searches devices."""


def planner_named(name: str) -> Planner:
    """Return a planner by its name.

    Raises:
        InputError: if there is none of that name, or one of the user's cannot be used.
    """
    return PLANNERS.named(name)
