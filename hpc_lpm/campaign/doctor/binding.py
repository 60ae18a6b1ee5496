"""Which cores the ranks may run on, and with how many threads they compute there."""

import math

from hpc_lpm.campaign.doctor.finding import Finding
from hpc_lpm.campaign.doctor.reports import RankReport, by_host
from hpc_lpm.campaign.doctor.situation import Situation

NAME = "binding"

Local = list[tuple[int, RankReport]]


def check_binding(situation: Situation) -> Finding:
    """Judge, host by host, whether every rank has a core to itself and threads to match."""
    if situation.job is None:
        return Finding(NAME, "warning", "not looked at: the ranks did not come", "mend the ranks")
    hosts = by_host(situation.job.ranks)
    findings = [_judge(host, local) for host, local in hosts.items()]
    order = ("failed", "warning", "ok")
    return min(findings, key=lambda finding: order.index(finding.verdict))


def _judge(host: str, local: Local) -> Finding:
    available = _available_cores(local)
    crowd = _crowd(local)
    if crowd and available >= len(local):
        numbers = ", ".join(str(number) for number, _ in crowd)
        cores = ", ".join(map(str, sorted({core for _, rank in crowd for core in rank.cores})))
        return Finding(
            NAME,
            "failed",
            f"ranks {numbers} on {host} are bound to the same too few cores ({cores}) although "
            f"{available} are there",
            "start them with mpirun --bind-to none, or with srun --cpu-bind=none, or give every "
            "rank a core of its own",
        )
    if available < len(local):
        return Finding(
            NAME,
            "warning",
            f"{len(local)} ranks on {host} share {available} core(s)",
            "times will say little about the strategy: start fewer ranks a node or ask for more "
            "cores (sbatch --cpus-per-task)",
        )
    threads = sum(rank.threads for _, rank in local)
    if threads > available:
        per_rank = ", ".join(str(rank.threads) for _, rank in local)
        return Finding(
            NAME,
            "warning",
            f"ranks on {host} compute with {per_rank} threads on {available} cores "
            f"(OMP_NUM_THREADS={local[0][1].omp_num_threads or 'unset'})",
            f"export OMP_NUM_THREADS={max(1, available // len(local))} before mpirun",
        )
    return Finding(NAME, "ok", f"{_described(local)}; {available} cores for {len(local)} rank(s)")


def _available_cores(local: Local) -> int:
    """Return how many cores the ranks of a host could have used together, however bound."""
    allowed = {core for _, rank in local for core in rank.cores}
    cores = max(len(allowed), *(rank.launcher_cores for _, rank in local))
    quotas = [rank.core_quota for _, rank in local if rank.core_quota is not None]
    return min([cores, *(max(1, math.floor(quota)) for quota in quotas)])


def _crowd(local: Local) -> Local:
    """Return ranks that have, together, fewer cores than they are (Hall's condition), if any."""
    for _, holder in local:
        inside = [(n, rank) for n, rank in local if set(rank.cores) <= set(holder.cores)]
        if len(inside) > len(holder.cores):
            return inside
    return []


def _described(local: Local) -> str:
    rank = local[0][1]
    same = all(other.cores == rank.cores for _, other in local)
    where = f"any of {len(rank.cores)} cores" if same else "cores of its own"
    if len(local) == 1:
        where = f"{len(rank.cores)} core(s)"
    return f"every rank on {where}, {rank.threads} thread(s) each"
