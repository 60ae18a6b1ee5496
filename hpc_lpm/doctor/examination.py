"""Makes all checks, on the ranks of the MPI job at hand or on ranks started for the purpose."""

from collections.abc import Callable
from dataclasses import dataclass

from hpc_lpm.doctor.bounded_waits import BoundedCollectives, end_process_after
from hpc_lpm.doctor.clocks import check_clock
from hpc_lpm.doctor.cores import check_binding
from hpc_lpm.doctor.gpu import check_gpu
from hpc_lpm.doctor.link_check import check_link
from hpc_lpm.doctor.network import check_network
from hpc_lpm.doctor.probe_report import LinkOfNodes, links_of_nodes
from hpc_lpm.doctor.probe_start import in_job, probe_this_job, ranks_to_start, start_ranks
from hpc_lpm.doctor.rank_checks import check_placement, check_ranks
from hpc_lpm.doctor.shared_files import check_shared_files
from hpc_lpm.doctor.site import check_site
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.doctor.slurm import check_accounting, check_mpi_plugin, check_slurm
from hpc_lpm.doctor.software import check_environment, check_packages
from hpc_lpm.doctor.storage import check_storage

CHECKS: list[Callable[[Situation], Finding]] = [
    check_ranks,
    check_placement,
    check_network,
    check_binding,
    check_link,
    check_clock,
    check_gpu,
    check_slurm,
    check_accounting,
    check_site,
    check_mpi_plugin,
    check_storage,
    check_shared_files,
    check_environment,
    check_packages,
]
"""The checks in the order in which they are made and shown."""

CHECK_SECONDS = 600.0
"""How long the other ranks of an MPI job wait for rank 0, which makes the checks."""


@dataclass(frozen=True)
class Examination:
    """The findings of all checks and the measured links.

    `ranks_hang` is true if some rank of this MPI job did not reach the end of the probe. The job
    must then be aborted, since MPI would wait for that rank when it finalizes.
    """

    findings: tuple[Finding, ...]
    links: tuple[LinkOfNodes, ...] = ()
    ranks_hang: bool = False


def examine_machine(ranks: int | None) -> Examination:
    """Make all checks and return their findings.

    In an MPI job every rank must call this; rank 0 makes the checks, and all ranks return its
    findings. Outside an MPI job, `ranks` ranks are started for the purpose.

    Args:
        ranks: how many ranks the user asked for. None stands for all ranks of the MPI job or,
            outside one, for the number of tasks of the Slurm job, or else two.

    Raises:
        RanksMissingError: on the other ranks of an MPI job, if rank 0 does not finish its checks.
    """
    if not in_job():
        return _examine(start_ranks(ranks_to_start() if ranks is None else ranks))
    situation = probe_this_job(ranks)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    end_process_after(2.0 * CHECK_SECONDS)
    examination = _examine(situation) if world.rank == 0 else Examination(())
    if situation.jobs[0].unfinished and world.rank == 0:
        return Examination(examination.findings, examination.links, ranks_hang=True)
    return BoundedCollectives(world, CHECK_SECONDS).broadcast(examination, "what rank 0 found")


def make_checks(situation: Situation) -> tuple[Finding, ...]:
    """Make all checks; an exception in one becomes a failed finding and stops no other."""
    findings = []
    for check in CHECKS:
        try:
            findings.append(check(situation))
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            found = f"the check itself failed: {type(error).__name__}: {error}"
            findings.append(Finding(name, "failed", found, "report this as a bug in hpc-lpm"))
    return tuple(findings)


def _examine(situation: Situation) -> Examination:
    job = situation.job
    return Examination(make_checks(situation), links_of_nodes(job) if job else ())
