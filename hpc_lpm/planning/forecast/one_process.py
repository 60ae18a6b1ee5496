"""What one process with the whole model is predicted to do, on one thread or on several."""

from fractions import Fraction

from hpc_lpm.errors import InputError
from hpc_lpm.planning.forecast.case import Case, divided_batch
from hpc_lpm.planning.forecast.data_parallel import compute_seconds, fitting
from hpc_lpm.planning.forecast.forecast import Forecast
from hpc_lpm.planning.memory import whole_model_memory_bytes

WAY = "one process"
WAY_OF_THREADS = "threads of one process"


def forecast_one_process(case: Case, threads: int = 1) -> list[Forecast]:
    """Return what training in one process does at every profiled micro-batch, best first.

    Several threads take what was measured with them, or else a share of one thread's time each,
    which is a bound: operations that are too small to be shared are not sped up.

    Raises:
        InputError: if no micro-batch divides the batch, the model does not fit, or the threads
            cannot be of one process; the sentence says why.
    """
    _check_threads(case, threads)
    found = []
    for profile, micro_batches in divided_batch(case, 1):
        alone, measured = compute_seconds(profile), case.threaded_seconds.get(profile.micro_batch)
        at_best = threads > 1 and measured is None
        seconds, bound = alone / threads, "the compute of the whole model on one device"
        if at_best:
            bound = f"a {threads}th of one thread's compute, if every operation is shared evenly"
        elif threads > 1 and measured is not None:
            seconds, bound = Fraction(measured), f"its compute on {threads} threads, as measured"
        found.append(
            Forecast(
                way=WAY if threads == 1 else WAY_OF_THREADS,
                stages=1,
                replicas=1,
                micro_batches=micro_batches,
                micro_batch=profile.micro_batch,
                step_seconds=seconds * micro_batches,
                bound=bound,
                memory_bytes=whole_model_memory_bytes(profile, case.options.optimizer),
                sent_bytes=0,
                samples=case.batch_size,
                at_best=at_best,
            )
        )
    return sorted(fitting(case, found), key=lambda forecast: forecast.merit)


def _check_threads(case: Case, threads: int) -> None:
    if threads == 1:
        return
    if case.nodes is not None and case.nodes.devices < threads:
        raise InputError(
            f"the threads of one process are on one node, which has {case.nodes.devices} of the "
            f"{threads} devices"
        )
    devices = {profile.device for profile in case.profiles} - {"cpu"}
    if devices:
        raise InputError(
            f"threads share the work of processors, and the profile is of {', '.join(devices)}"
        )
