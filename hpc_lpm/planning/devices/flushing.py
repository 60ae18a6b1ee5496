"""Seconds of an optimizer step under a schedule that flushes, simulated.

Stages wait at every update for the pipeline to empty, so that no cycle in closed form tells what a
step takes: some steps are simulated until the first stage's updates settle.
"""

from fractions import Fraction

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.devices.steady_state import SteadyStep
from hpc_lpm.planning.prediction import clock_of
from hpc_lpm.schedules.simulate import simulate

_SETTLING, _COUNTED = 2, 4
"""Steps that are left out, and those counted, where averages over replicas reach into the next."""


def flushing_step(model: CostModel, cuts: tuple[int, ...]) -> SteadyStep:
    """Return what a step takes with a plan's cuts under the model's schedule, which flushes.

    It is simulated with floats; what they round decides only where two plans are equally good.
    """
    options = model.options
    # Without replicas nothing is left of a step when the next begins: all take the same.
    settling, counted = (_SETTLING, _COUNTED) if options.replicas > 1 else (1, 1)
    updates = simulate(
        model.schedule,
        clock_of(model, cuts),
        options.micro_batches,
        (settling + counted) * options.micro_batches,
        options.lead,
        replicas=options.replicas,
    ).update_seconds
    return SteadyStep(
        (Fraction(updates[-1]) - Fraction(updates[settling - 1])) / counted,
        f"the flush of {model.schedule.name} before every update",
        "flush",
    )
