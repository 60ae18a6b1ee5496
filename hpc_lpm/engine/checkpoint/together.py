"""An action of every rank that all of them hear the failure of."""

from collections.abc import Callable
from typing import TypeVar

from hpc_lpm.engine.job import Job

Value = TypeVar("Value")


def together(
    job: Job,
    action: Callable[[], Value],
    expected: tuple[type[Exception], ...],
    failure: Callable[[str, str], Exception],
) -> list[Value]:
    """Run `action` on this rank and return what it returned on each (collective).

    Args:
        job: the ranks.
        action: what to do.
        expected: the errors that may come of it.
        failure: makes what every rank raises if one has failed, from the error's text and from
            ` (rank N)`, which is empty if there is but one.

    Raises:
        Exception: as made by `failure`.
    """
    value, problem = None, None
    try:
        value = action()
    except expected as error:
        problem = " ".join(str(error).split()).rstrip(".")
    outcomes = job.all_gather((value, problem))
    for rank, (_, found) in enumerate(outcomes):
        if found is not None:
            raise failure(found, f" (rank {rank})" if job.size > 1 else "")
    return [value for value, _ in outcomes]
