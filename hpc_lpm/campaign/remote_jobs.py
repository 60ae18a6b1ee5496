"""Keeps Snakemake from losing the jobs of a cluster that does not answer.

Snakemake takes a job whose end was not reported, and that its executor did not hand back, for none
of its own any more, and then waits for its end for ever. The executor for Slurm does neither where
the controller was away for so long that all its questions failed.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any


def keep_unanswered_jobs(executor: Any) -> None:
    """Have an executor hand back every job whose end it does not report.

    Args:
        executor: an executor of Snakemake; one that asks no cluster for jobs is left as it is.
    """
    check = getattr(executor, "check_active_jobs", None)
    if check is None:
        return
    reported: set[int] = set()

    def noted(report: Callable[..., None]) -> Callable[..., None]:
        def report_and_note(job: Any, *others: Any, **options: Any) -> None:
            reported.add(id(job))
            report(job, *others, **options)

        return report_and_note

    async def check_active_jobs(jobs: Sequence[Any]) -> AsyncIterator[Any]:
        reported.clear()
        handed_back = set()
        async for job in check(jobs):
            handed_back.add(id(job))
            yield job
        for job in jobs:
            if id(job) not in handed_back | reported:
                yield job

    executor.report_job_success = noted(executor.report_job_success)
    executor.report_job_error = noted(executor.report_job_error)
    executor.check_active_jobs = check_active_jobs
