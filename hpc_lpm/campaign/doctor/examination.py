"""All checks on the ranks at hand or on ranks started for them."""

from dataclasses import dataclass

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.probing.meeting import Meeting
from hpc_lpm.campaign.doctor.probing.patience import bound_process
from hpc_lpm.campaign.doctor.registry import CHECKS
from hpc_lpm.campaign.doctor.reports import LinkOfNodes, links_of_nodes
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.campaign.doctor.starting import (
    in_job,
    look_at_this_job,
    ranks_to_start,
    start_ranks,
)

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
