"""Keeps Snakemake from losing the jobs that it has submitted to a cluster.

While its executor asks for their states, Snakemake knows of none of them, and afterwards of those
alone that were handed back. So an interrupt that comes meanwhile cancels no job; and where the
controller was away for so long that all questions failed, the executor for Slurm hands nothing
back, and the driver waits for ever for jobs that it does not ask for any more.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any


def keep_jobs(executor: Any) -> None:
    """Have an executor hand back, and cancel, every job whose end it has not reported.

    Args:
        executor: an executor of Snakemake; one that asks no cluster for jobs is left as it is.
    """
    check = getattr(executor, "check_active_jobs", None)
    if check is None:
        return
    cancel = executor.cancel_jobs
    asked: list[Any] = []
    reported: set[int] = set()

    def noted(report: Callable[..., None]) -> Callable[..., None]:
        def report_and_note(job: Any, *others: Any, **options: Any) -> None:
            reported.add(id(job))
            report(job, *others, **options)

        return report_and_note

    def left(but: Sequence[Any]) -> list[Any]:
        known = reported | {id(job) for job in but}
        return [job for job in asked if id(job) not in known]

    async def check_active_jobs(jobs: Sequence[Any]) -> AsyncIterator[Any]:
        reported.clear()
        asked[:] = jobs
        handed_back = []
        async for job in check(jobs):
            handed_back.append(job)
            yield job
        for job in left(handed_back):
            yield job

    executor.report_job_success = noted(executor.report_job_success)
    executor.report_job_error = noted(executor.report_job_error)
    executor.check_active_jobs = check_active_jobs
    executor.cancel_jobs = lambda jobs: cancel([*jobs, *left(jobs)])
