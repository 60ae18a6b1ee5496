"""All checks on the ranks at hand or on ranks started for them."""

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.registry import CHECKS
from hpc_lpm.campaign.doctor.situation import Situation
from hpc_lpm.campaign.doctor.starting import (
    in_job,
    look_at_this_job,
    start_ranks,
)

DEFAULT_RANKS = 2


def examine_machine(ranks: int | None) -> tuple[Finding, ...]:
    """Make all checks and return what they found.

    In an MPI job all of its ranks must call this, and all get what rank 0 found; outside one,
    `ranks` ranks are started (`DEFAULT_RANKS` if None).
    """
    if not in_job():
        return make_checks(start_ranks(DEFAULT_RANKS if ranks is None else ranks))
    situation = look_at_this_job(ranks)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    findings: tuple[Finding, ...] = world.bcast(make_checks(situation) if world.rank == 0 else ())
    return findings


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
