"""The error for a Pareto front that is too wide to be found, and what would do."""

from fractions import Fraction

from hpc_lpm.errors import InputError
from hpc_lpm.planning.cost import CostModel


def too_wide(model: CostModel, longest: Fraction | None, found: str) -> InputError:
    """Return the error; `longest` is the period that bounds the front, `found` what is too much."""
    bound = "any period" if longest is None else f"a period of at most {float(longest):.6g} s"
    remedy = "--pareto-within, such as 0.1" if longest is None else "a smaller --pareto-within"
    return InputError(
        f"the Pareto front of {model.profile.model} ({model.layers} layers) in {model.stages} "
        f"stages takes {found} with {bound}: bound the period by {remedy}, or ask for fewer stages."
    )
