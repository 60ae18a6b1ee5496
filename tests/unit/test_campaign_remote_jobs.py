"""A driver loses no job of a cluster, whether or not the cluster answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

from hpc_lpm.campaign.remote_jobs import keep_jobs


class Executor:
    """Asks a cluster as that of Slurm does, which hands nothing back where it has no answer."""

    def __init__(self) -> None:
        self.answer: dict[str, str] | None = None
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.while_asking: Callable[[], object] = lambda: None

    async def check_active_jobs(self, jobs: list[str]) -> AsyncIterator[str]:
        self.while_asking()
        if self.answer is None:
            return
        for job in jobs:
            if self.answer[job] == "COMPLETED":
                self.report_job_success(job)
            elif self.answer[job] == "FAILED":
                self.report_job_error(job, msg="it failed")
            else:
                yield job

    def report_job_success(self, job: str) -> None:
        self.ended.append(f"{job} is done")

    def report_job_error(self, job: str, msg: str) -> None:
        self.ended.append(f"{job}: {msg}")

    def cancel_jobs(self, jobs: list[str]) -> None:
        self.cancelled += jobs


def handed_back(executor: Executor, jobs: list[str]) -> list[str]:
    async def ask() -> list[str]:
        return [job async for job in executor.check_active_jobs(jobs)]

    return asyncio.run(ask())


def test_jobs_stay_until_their_end_is_known_however_often_nobody_answers() -> None:
    executor, jobs = Executor(), ["one", "two", "three"]
    keep_jobs(executor)
    assert handed_back(executor, jobs) == jobs
    assert handed_back(executor, jobs) == jobs
    assert not executor.ended
    executor.answer = {"one": "COMPLETED", "two": "FAILED", "three": "RUNNING"}
    assert handed_back(executor, jobs) == jobs[2:]
    assert executor.ended == ["one is done", "two: it failed"]
    executor.answer = None
    assert handed_back(executor, jobs[2:]) == jobs[2:]


def test_an_interrupt_while_the_cluster_is_asked_cancels_what_has_not_ended() -> None:
    executor, jobs = Executor(), ["one", "two", "three"]
    keep_jobs(executor)
    executor.while_asking = lambda: executor.cancel_jobs([])
    handed_back(executor, jobs)
    assert executor.cancelled == jobs
    # Afterwards as well, each of them once.
    executor.while_asking = lambda: None
    executor.answer = {"one": "COMPLETED", "two": "RUNNING", "three": "RUNNING"}
    known = handed_back(executor, jobs)
    executor.cancelled.clear()
    executor.cancel_jobs([*known, "submitted since"])
    assert executor.cancelled == ["two", "three", "submitted since"]


def test_what_asks_no_cluster_is_left_as_it_is() -> None:
    local = SimpleNamespace(run_uuid=None)
    keep_jobs(local)
    assert vars(local) == {"run_uuid": None}
    keep_jobs(None)
