"""All checks on the ranks at hand or on ranks started for them."""

from collections.abc import Callable
from dataclasses import dataclass

from hpc_lpm.doctor.bounded_waits import Meeting, bound_process
from hpc_lpm.doctor.clocks import check_clock
from hpc_lpm.doctor.cores import check_binding
from hpc_lpm.doctor.gpu import check_gpu
from hpc_lpm.doctor.link_check import check_link
from hpc_lpm.doctor.probe_report import LinkOfNodes, links_of_nodes
from hpc_lpm.doctor.rank_checks import check_placement, check_ranks
from hpc_lpm.doctor.shared_files import check_shared_files
from hpc_lpm.doctor.situation import Finding, Situation
from hpc_lpm.doctor.slurm import check_accounting, check_mpi_plugin, check_slurm
from hpc_lpm.doctor.software import check_environment, check_packages
from hpc_lpm.doctor.starting import (
    in_job,
    look_at_this_job,
    ranks_to_start,
    start_ranks,
)
from hpc_lpm.doctor.storage import check_storage

CHECKS: list[Callable[[Situation], Finding]] = [
    check_ranks,
    check_placement,
    check_binding,
    check_link,
    check_clock,
    check_gpu,
    check_slurm,
    check_accounting,
    check_mpi_plugin,
    check_storage,
    check_shared_files,
    check_environment,
    check_packages,
]


CHECK_SECONDS = 600.0
"""How long the other ranks of a job wait for rank 0, whose checks ask other programs."""


@dataclass(frozen=True)
class Examination:
    """What the checks found and the links between nodes.

    `ranks_hang` tells that some rank of this MPI job did not come to the end of the probe: MPI
    must be aborted, since it would wait for that rank before it ends.
    """

    findings: tuple[Finding, ...]
    links: tuple[LinkOfNodes, ...] = ()
    ranks_hang: bool = False


def examine_machine(ranks: int | None) -> Examination:
    """Make all checks and return what they found.

    In an MPI job all of its ranks must call this, and all get what rank 0 found; outside one,
    `ranks` ranks are started (if None, as many as Slurm allotted tasks, or two).

    Raises:
        RanksMissingError: on a rank of a job whose rank 0 does not come to an end.
    """
    if not in_job():
        return _examine(start_ranks(ranks_to_start() if ranks is None else ranks))
    situation = look_at_this_job(ranks)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    bound_process(2.0 * CHECK_SECONDS)
    examination = _examine(situation) if world.rank == 0 else Examination(())
    if situation.jobs[0].unfinished and world.rank == 0:
        return Examination(examination.findings, examination.links, ranks_hang=True)
    return Meeting(world, CHECK_SECONDS).share(examination, "what rank 0 found")


def make_checks(situation: Situation) -> tuple[Finding, ...]:
    """Make all checks; one that breaks down is a finding of its own and stops no other."""
    findings = []
    for check in CHECKS:
        try:
            findings.append(check(situation))
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            found = f"the check broke down: {type(error).__name__}: {error}"
            findings.append(Finding(name, "failed", found, "report this as a defect of hpc-lpm"))
    return tuple(findings)


def _examine(situation: Situation) -> Examination:
    job = situation.job
    return Examination(make_checks(situation), links_of_nodes(job) if job else ())
