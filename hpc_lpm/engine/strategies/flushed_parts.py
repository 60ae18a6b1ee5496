"""Checks the parts of a run in which every step flushes, against its length."""

from fractions import Fraction

from hpc_lpm.durations import Duration
from hpc_lpm.engine.pipeline.options import LaggingOptions
from hpc_lpm.engine.strategies.base import PlannedRun
from hpc_lpm.errors import InputError


def check_flushed_parts(run: PlannedRun, own: LaggingOptions) -> None:
    """Refuse a synchronous head and tail that are longer than the run, as far as this is known.

    Raises:
        InputError: naming the option, its value and the length of the run.
    """
    lengths = {"epochs": run.epochs, "steps": run.steps, "%": 100}
    parts = {
        "--synchronous-head": Duration.parse(own.synchronous_head),
        "--synchronous-tail": Duration.parse(own.synchronous_tail),
    }
    for option, part in parts.items():
        length = lengths[part.unit]
        if length is not None and part.number > length:
            unit = part.unit if length > 1 else part.unit.removesuffix("s")
            raise InputError(
                f"{option} {part.written} is longer than the run, which has {length} {unit}: use "
                f"at most {Duration(Fraction(length), part.unit).written}."
            )
    head, tail = parts.values()
    if not (head.number and tail.number):
        return
    overlap = False
    if run.steps is not None and run.steps_an_epoch is not None:
        flushed = own.flushed_steps(run.steps, run.steps_an_epoch)
        overlap = flushed.head > flushed.tail
    elif head.unit == tail.unit and (length := lengths[head.unit]) is not None:
        overlap = head.number + tail.number > length
    if overlap:
        raise InputError(
            f"--synchronous-head {head.written} and --synchronous-tail {tail.written} are together "
            "longer than the run: shorten one of them, or use a strategy that always flushes."
        )
