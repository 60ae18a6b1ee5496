"""What every rank runs: it looks at itself and at the others, and rank 0 writes the report.

Started as `mpirun -n K python -m mpi4py -m hpc_lpm.doctor.probe`, or called on the ranks
of a job that is already there.
"""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hpc_lpm.doctor.bounded_waits import Meeting, RanksMissingError, bound_process
from hpc_lpm.doctor.clocks import measure_offsets
from hpc_lpm.doctor.cores import allowed_cores, core_quota, launcher_cores, slurm_cores
from hpc_lpm.doctor.gpu import ANSWER_SECONDS, look_at_gpus
from hpc_lpm.doctor.link_probe import NodeLinks, measure_neighbours, measure_node_links
from hpc_lpm.doctor.probe_report import ClockReading, JobReport, RankReport, Software
from hpc_lpm.doctor.shared_files import try_shared_files
from hpc_lpm.doctor.storage import nearest_existing
from hpc_lpm.ranks import local_rank_from_environment

if TYPE_CHECKING:
    from mpi4py import MPI


MARK = "hpc-lpm-probe:"
"""Starts a report's line, since a launcher's own messages may share its output."""

MEETING_SECONDS = 30.0
"""How long ranks wait for each other, beyond what each may take for its part."""

PROBE_SECONDS, PROBE_SECONDS_A_RANK = 300.0, 1.0
"""After this time a rank is ended from outside, should it hang in MPI itself."""

ENDING_SECONDS = 60.0


def _keep(report: JobReport) -> None:
    """Publish nothing: who asked is there to get the report in the end."""


def probe_ranks(
    communicator: "MPI.Intracomm", library: str, *, publish: Callable[[JobReport], None] = _keep
) -> JobReport:
    """Return the report of all ranks on rank 0; every rank must call this.

    A rank that does not come ends the probe, and the report says which; what the ranks found out
    until then is in it. `publish` gets, on rank 0, the report as it is before each part of the
    probe: MPI may end all ranks when two nodes do not reach each other.
    """
    start_monotonic, start_wall = time.monotonic(), time.time()
    meeting = Meeting(communicator, MEETING_SECONDS)
    found: dict[str, Any] = {"library": library, "name": f"{platform.node()}:{os.getpid()}"}
    ranks: list[RankReport] = []

    def begin(part: str) -> None:
        if communicator.rank == 0:
            publish(JobReport(**found, unfinished=f"the probe ended at {part}"))

    def keep_links(between: NodeLinks) -> None:
        found.update(node_links=between.links, node_links_complete=between.complete)

    def begin_round(between: NodeLinks, pairs: str) -> None:
        keep_links(between)
        begin(f"the link between {pairs}")

    try:
        ranks = meeting.gather(
            describe_this_rank(), "the start", extra_seconds=MEETING_SECONDS + ANSWER_SECONDS
        )
        found["ranks"] = tuple(ranks)
        begin("the clocks of the hosts")
        hosts = meeting.share([rank.host for rank in ranks], "the start")
        representatives = [hosts.index(host) for host in dict.fromkeys(hosts)]
        found["offsets"] = measure_offsets(communicator, representatives, hosts)
        begin("the files that all nodes should see")
        folder = nearest_existing(Path.cwd() / "results")
        found["shared_folder"] = str(folder)
        found["shared_files"] = try_shared_files(meeting, representatives, hosts, folder)
        begin("the links within nodes")
        found["neighbours"] = measure_neighbours(meeting, hosts)
        keep_links(measure_node_links(meeting, representatives, hosts, begin_round))
        begin("the clocks of the ranks")
        meeting.gather(None, "the clocks")
        reading = ClockReading(
            monotonic=time.monotonic(),
            monotonic_elapsed=time.monotonic() - start_monotonic,
            wall_elapsed=time.time() - start_wall,
        )
        found["clocks"] = tuple(meeting.gather(reading, "the clocks"))
    except RanksMissingError as error:
        found["unfinished"] = _who_is_missing(error, ranks)
    return JobReport(**found)


def probe_world(publish: Callable[[JobReport], None] = _keep) -> JobReport:
    """Return on rank 0 the report of all ranks of the MPI job that this process is in."""
    bound_process(PROBE_SECONDS)  # importing MPI starts it, and that alone may hang
    from mpi4py import MPI

    bound_process(PROBE_SECONDS + PROBE_SECONDS_A_RANK * MPI.COMM_WORLD.size)
    library = MPI.Get_library_version().rstrip("\0")
    return probe_ranks(MPI.COMM_WORLD, library, publish=publish)


def abandon_ranks() -> None:
    """End all ranks of this MPI job, some of which hang, with exit code 1."""
    from mpi4py import MPI

    sys.stdout.flush()
    MPI.COMM_WORLD.Abort(1)


def reports_in(output: str) -> tuple[JobReport, ...]:
    """Return the reports in the output of a launcher, of each job the last one."""
    lines = (line.partition(MARK)[2] for line in output.splitlines() if MARK in line)
    reports = (JobReport.model_validate_json(line) for line in lines)
    return tuple({report.name: report for report in reports}.values())


AGREED = ("hpc-lpm", "torch", "deepspeed", "mpi4py")
"""Packages that must be of one version on all ranks."""


def describe_this_rank(environment: Mapping[str, str] = os.environ) -> RankReport:
    """Return the report of this process."""
    gpu = look_at_gpus()
    return RankReport(
        pid=os.getpid(),
        host=platform.node(),
        cores=allowed_cores(),
        launcher_cores=launcher_cores(),
        core_quota=core_quota(),
        slurm_cores=slurm_cores(environment),
        threads=torch.get_num_threads(),
        omp_num_threads=environment.get("OMP_NUM_THREADS"),
        gpu=gpu,
        gpu_number=local_rank_from_environment() % max(1, len(gpu.gpus)),
        software=describe_software(),
    )


def describe_software() -> Software:
    """Return which Python this is and the versions of the packages in `AGREED`."""
    versions = {"Python": platform.python_version()}
    for package in AGREED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return Software(executable=sys.executable, versions=versions)


def _who_is_missing(error: RanksMissingError, ranks: list[RankReport]) -> str:
    hosts = dict.fromkeys(ranks[rank].host for rank in error.ranks) if ranks else ()
    where = f" (on {', '.join(hosts)})" if hosts else ""
    return f"{error}{where}"


def _main() -> None:
    report = probe_world(_write)
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        _write(report)
        if report.unfinished:
            abandon_ranks()
    bound_process(ENDING_SECONDS)


def _write(report: JobReport) -> None:
    # In one piece: processes that are no job of one another write into the same pipe.
    os.write(sys.stdout.fileno(), f"{MARK}{report.model_dump_json()}\n".encode())


if __name__ == "__main__":
    _main()
