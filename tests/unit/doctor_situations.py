"""Made-up machines for the doctor to look at."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from hpc_lpm.doctor.probe_report import (
    ClockOffset,
    ClockReading,
    GpuReport,
    GpuSight,
    JobReport,
    NeighbourLink,
    NodeLink,
    RankReport,
    SharedFiles,
    Software,
)
from hpc_lpm.doctor.situation import Situation

LIBRARY = "Open MPI v5.0.11, package: some build"
READING = ClockReading(monotonic=50.0, monotonic_elapsed=0.5, wall_elapsed=0.5)
NO_GPU = GpuSight(torch="2.13.0+cpu", built_for=None, driver=False)
SOFTWARE = Software(executable="/shared/.venv/bin/python", versions={"Python": "3.11.7"})


def rank(number: int, **changes: object) -> RankReport:
    """Return a rank of a healthy job on a host of four cores, changed as told."""
    healthy = RankReport(
        pid=100 + number,
        host="n1",
        cores=(0, 1, 2, 3),
        launcher_cores=4,
        core_quota=None,
        slurm_cores=None,
        threads=1,
        omp_num_threads="1",
        gpu=NO_GPU,
        gpu_number=0,
        software=SOFTWARE,
    )
    return healthy.model_copy(update=changes)


def gpus(*uuids: str, name: str = "Some Card", visible: str | None = None) -> GpuSight:
    """Return what a rank sees that sees these GPUs of one model."""
    seen = tuple(GpuReport(name=name, uuid=uuid) for uuid in uuids)
    return GpuSight(
        torch="2.13.0+cu128", built_for="12.8", driver=True, gpus=seen, visible_devices=visible
    )


def neighbours(
    left: int, latency_seconds: float = 2e-6, bandwidth_bytes_per_second: float = 5e9
) -> NeighbourLink:
    return NeighbourLink(
        ranks=(left, left + 1),
        latency_seconds=latency_seconds,
        bandwidth_bytes_per_second=bandwidth_bytes_per_second,
    )


def between(
    left: str,
    right: str,
    latency_seconds: float | None = 20e-6,
    bandwidth_bytes_per_second: float | None = 1e9,
) -> NodeLink:
    return NodeLink(
        nodes=(left, right),
        latency_seconds=latency_seconds,
        bandwidth_bytes_per_second=bandwidth_bytes_per_second,
        message_bytes=2**20,
    )


def job(*ranks: RankReport, **changes: Any) -> JobReport:
    """Return the report of a healthy job of these ranks, changed as told."""
    hosts = list(dict.fromkeys(one.host for one in ranks))
    numbered: Sequence[tuple[int, RankReport]] = list(enumerate(ranks))
    healthy = JobReport(
        name=f"{hosts[0] if hosts else 'n1'}:{ranks[0].pid if ranks else 0}",
        library=LIBRARY,
        ranks=ranks,
        clocks=(READING,) * len(ranks),
        offsets=tuple(
            ClockOffset(host=host, offset_seconds=1e-4, uncertainty_seconds=2e-5)
            for host in hosts[1:]
        ),
        neighbours=tuple(
            neighbours(left)
            for (left, one), (_, other) in pairwise(numbered)
            if one.host == other.host
        ),
        node_links=tuple(between(*pair) for pair in combinations(hosts, 2)),
        shared_folder="/shared/work",
        shared_files=tuple(SharedFiles(host=host, lock_problem="") for host in hosts),
    )
    return healthy.model_copy(update=changes)


def situation(*jobs: JobReport, asked: int = 2, folder: Path = Path(), **more: Any) -> Situation:
    return Situation(ranks_asked=asked, processes=asked, jobs=jobs, folder=folder, **more)


def of_ranks(*ranks: RankReport, **more: Any) -> Situation:
    return situation(job(*ranks), asked=len(ranks), **more)


def of_job(report: JobReport) -> Situation:
    return situation(report, asked=len(report.ranks))
