"""Made-up machines for the doctor to look at."""

from pathlib import Path

from hpc_lpm.campaign.doctor.reports import JobReport, RankReport
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.profiling.profile import LinkProfile

FAST = LinkProfile(latency_seconds=2e-6, bandwidth_bytes_per_second=5e9)
LIBRARY = "Open MPI v5.0.11, package: some build"


def rank(number: int, **changes: object) -> RankReport:
    """Return a rank of a healthy job on a host of four cores, changed as told."""
    healthy = RankReport(
        pid=100 + number,
        host="n1",
        cores=(0, 1, 2, 3),
        launcher_cores=4,
        core_quota=None,
        threads=1,
        omp_num_threads="1",
        monotonic=50.0,
        wall=1e9,
        monotonic_elapsed=0.5,
        wall_elapsed=0.5,
    )
    return healthy.model_copy(update=changes)


def job(*ranks: RankReport, links: tuple[LinkProfile, ...] | None = None) -> JobReport:
    between = (FAST,) * (len(ranks) - 1) if links is None else links
    return JobReport(library=LIBRARY, ranks=ranks, links=between)


def situation(*jobs: JobReport, asked: int = 2, folder: Path = Path(), **more: str) -> Situation:
    return Situation(ranks_asked=asked, processes=asked, jobs=jobs, folder=folder, **more)


def of_ranks(*ranks: RankReport) -> Situation:
    return situation(job(*ranks), asked=len(ranks))
