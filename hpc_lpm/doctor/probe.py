"""The program that every rank runs: ranks describe themselves and measure what is between them.

Rank 0 prints the report. The probe is started by `mpirun -n K python -m mpi4py -m
hpc_lpm.doctor.probe`, or called on the ranks of an MPI job that is already running.
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

from hpc_lpm.doctor.bounded_waits import BoundedCollectives, RanksMissingError, end_process_after
from hpc_lpm.doctor.clocks import measure_offsets
from hpc_lpm.doctor.cores import allowed_cores, core_quota, launcher_cores, slurm_cores
from hpc_lpm.doctor.gpu import ANSWER_SECONDS, look_at_gpus
from hpc_lpm.doctor.link_probe import NodeLinks, measure_neighbours, measure_node_links
from hpc_lpm.doctor.probe_report import ClockReading, JobReport, RankReport, Software
from hpc_lpm.doctor.shared_files import try_shared_files
from hpc_lpm.doctor.storage import nearest_existing
from hpc_lpm.interfaces import choose_interface, named_by_user, own_interface
from hpc_lpm.ranks import local_rank_from_environment, spans_nodes

if TYPE_CHECKING:
    from mpi4py import MPI


MARK = "hpc-lpm-probe:"
"""Starts the line of a report, since the launcher may print messages of its own."""

_NETWORK_OF_USER = named_by_user()
"""Before this program chooses a network itself."""

COLLECTIVE_SECONDS = 30.0
"""How long ranks wait for each other, on top of the time that each may need for its part."""

PROBE_SECONDS, PROBE_SECONDS_PER_RANK = 300.0, 1.0
"""The operating system ends a rank after this time, in case it hangs in MPI itself."""

ENDING_SECONDS = 60.0
"""How long a rank may take to finalize MPI and end."""


def _keep(report: JobReport) -> None:
    """Publish nothing: the caller gets the report when the probe has ended."""


def probe_ranks(
    communicator: "MPI.Intracomm", library: str, *, publish: Callable[[JobReport], None] = _keep
) -> JobReport:
    """Measure everything and return the report on rank 0; every rank must call this.

    If a rank is missing, the probe ends, and the report names the rank and holds what was measured
    until then. Before each part of the probe, `publish` is called on rank 0 with the report so far,
    since MPI may end all ranks if two nodes cannot reach each other.
    """
    start_monotonic, start_wall = time.monotonic(), time.time()
    collectives = BoundedCollectives(communicator, COLLECTIVE_SECONDS)
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
        ranks = collectives.gather(
            describe_this_rank(), "the start", extra_seconds=COLLECTIVE_SECONDS + ANSWER_SECONDS
        )
        found["ranks"] = tuple(ranks)
        begin("the clocks of the hosts")
        hosts = collectives.broadcast([rank.host for rank in ranks], "the start")
        representatives = [hosts.index(host) for host in dict.fromkeys(hosts)]
        found["offsets"] = measure_offsets(communicator, representatives, hosts)
        begin("the files that all nodes should see")
        folder = nearest_existing(Path.cwd() / "results")
        found["shared_folder"] = str(folder)
        found["shared_files"] = try_shared_files(collectives, representatives, hosts, folder)
        begin("the links within nodes")
        found["neighbours"] = measure_neighbours(collectives, hosts)
        keep_links(measure_node_links(collectives, representatives, hosts, begin_round))
        begin("the clocks of the ranks")
        collectives.gather(None, "the clocks")
        reading = ClockReading(
            monotonic=time.monotonic(),
            monotonic_elapsed=time.monotonic() - start_monotonic,
            wall_elapsed=time.time() - start_wall,
        )
        found["clocks"] = tuple(collectives.gather(reading, "the clocks"))
    except RanksMissingError as error:
        found["unfinished"] = _who_is_missing(error, ranks)
    return JobReport(**found)


def probe_world(publish: Callable[[JobReport], None] = _keep) -> JobReport:
    """Probe the MPI job that this process is part of and return the report on rank 0."""
    end_process_after(PROBE_SECONDS)  # importing MPI starts it, which may hang
    if spans_nodes():
        choose_interface()
    from mpi4py import MPI

    end_process_after(PROBE_SECONDS + PROBE_SECONDS_PER_RANK * MPI.COMM_WORLD.size)
    library = MPI.Get_library_version().rstrip("\0")
    return probe_ranks(MPI.COMM_WORLD, library, publish=publish)


def abandon_ranks() -> None:
    """End all ranks of this MPI job, of which some hang, with exit code 1."""
    from mpi4py import MPI

    sys.stdout.flush()
    MPI.COMM_WORLD.Abort(1)


def reports_in(output: str) -> tuple[JobReport, ...]:
    """Return the last report of each job in the output of a launcher."""
    lines = (line.partition(MARK)[2] for line in output.splitlines() if MARK in line)
    reports = (JobReport.model_validate_json(line) for line in lines)
    return tuple({report.name: report for report in reports}.values())


SAME_ON_ALL_RANKS = ("hpc-lpm", "torch", "deepspeed", "mpi4py")
"""Packages whose versions must be the same on all ranks."""


def describe_this_rank(environment: Mapping[str, str] = os.environ) -> RankReport:
    """Return what this rank can tell without the others."""
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
        interface=str(own_interface(environment) or ""),
        network_of_user=_NETWORK_OF_USER or "",
    )


def describe_software() -> Software:
    """Return this Python and the versions of the packages in `SAME_ON_ALL_RANKS`."""
    versions = {"Python": platform.python_version()}
    for package in SAME_ON_ALL_RANKS:
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
    end_process_after(ENDING_SECONDS)


def _write(report: JobReport) -> None:
    # Written in one piece, since processes that do not know each other may share the pipe.
    os.write(sys.stdout.fileno(), f"{MARK}{report.model_dump_json()}\n".encode())


if __name__ == "__main__":
    _main()
