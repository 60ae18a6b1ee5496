"""What every rank runs: it looks at itself and at the link, and rank 0 writes the report.

Started as `mpirun -n K python -m mpi4py -m hpc_lpm.campaign.doctor.probe`, or called on the ranks
of a job that is already there.
"""

import os
import platform
import sys
import time
from typing import TYPE_CHECKING

import torch

from hpc_lpm.campaign.doctor.cores import allowed_cores, core_quota, launcher_cores
from hpc_lpm.campaign.doctor.reports import JobReport, RankReport
from hpc_lpm.profiling.link import measure_link

if TYPE_CHECKING:
    from mpi4py import MPI

MARK = "hpc-lpm-probe:"
"""Starts a report's line, since a launcher's own messages may share its output."""


def probe_ranks(communicator: "MPI.Intracomm", library: str) -> JobReport:
    """Return the report of all ranks; every rank must call this, and all return the same."""
    monotonic, wall = time.monotonic(), time.time()
    links = measure_link(communicator).pairs if communicator.size > 1 else ()
    communicator.Barrier()
    monotonic_met, wall_met = time.monotonic(), time.time()
    own = RankReport(
        pid=os.getpid(),
        host=platform.node(),
        cores=allowed_cores(),
        launcher_cores=launcher_cores(),
        core_quota=core_quota(),
        threads=torch.get_num_threads(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        monotonic=monotonic_met,
        wall=wall_met,
        monotonic_elapsed=monotonic_met - monotonic,
        wall_elapsed=wall_met - wall,
    )
    return JobReport(library=library, ranks=tuple(communicator.allgather(own)), links=links)


def probe_world() -> JobReport:
    """Return the report of all ranks of the MPI job that this process is in."""
    from mpi4py import MPI  # importing it starts MPI

    return probe_ranks(MPI.COMM_WORLD, MPI.Get_library_version().rstrip("\0"))


def reports_in(output: str) -> tuple[JobReport, ...]:
    """Return the reports in the output of a launcher."""
    lines = (line.partition(MARK)[2] for line in output.splitlines() if MARK in line)
    return tuple(JobReport.model_validate_json(line) for line in lines)


def _main() -> None:
    from mpi4py import MPI

    report = probe_world()
    if MPI.COMM_WORLD.rank == 0:
        # In one piece: processes that are no job of one another write into the same pipe.
        os.write(sys.stdout.fileno(), f"{MARK}{report.model_dump_json()}\n".encode())


if __name__ == "__main__":
    _main()
