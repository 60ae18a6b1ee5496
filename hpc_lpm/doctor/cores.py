"""Which cores the ranks may run on, and whether every rank has a core to itself."""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hpc_lpm.control_groups import CONTROL_GROUPS, PROC, control_groups
from hpc_lpm.doctor.probe_report import NumberedRanks, by_host
from hpc_lpm.doctor.situation import Finding, Situation, counted

NAME = "binding"


def check_binding(situation: Situation) -> Finding:
    """Check on each host that every rank has a core to itself and no more threads than cores."""
    if situation.job is None:
        return situation.not_examined(NAME)
    hosts = by_host(situation.job.ranks)
    findings = {host: _judge(host, local) for host, local in hosts.items()}
    for verdict in ("failed", "warning"):
        bad = {host: one for host, one in findings.items() if one.verdict == verdict}
        if bad:
            first = next(iter(bad.values()))
            more = f"; {len(bad)} of {len(hosts)} nodes have such a problem"
            return replace(first, found=first.found + (more if len(bad) > 1 else ""))
    return Finding(NAME, "ok", _of_all_hosts({host: one.found for host, one in findings.items()}))


def _of_all_hosts(found: dict[str, str]) -> str:
    alike: dict[str, list[str]] = {}
    for host, text in found.items():
        alike.setdefault(text, []).append(host)
    if len(alike) == 1:
        (text,) = alike
        return text + (f", on each of {len(found)} nodes" if len(found) > 1 else "")
    groups = list(alike.items())
    shown = "; ".join(f"{', '.join(hosts[:4])}: {text}" for text, hosts in groups[:4])
    return shown + ("; and others" if len(groups) > 4 else "")


def _judge(host: str, local: NumberedRanks) -> Finding:
    available = _available_cores(local)
    crowd = _crowd(local)
    if crowd and available >= len(local):
        numbers = ", ".join(str(number) for number, _ in crowd)
        cores = ", ".join(map(str, sorted({core for _, rank in crowd for core in rank.cores})))
        return Finding(
            NAME,
            "failed",
            f"ranks {numbers} on {host} are bound to too few cores ({cores}), although "
            f"{available} are available",
            "start them with mpirun --bind-to none or srun --cpu-bind=none, or bind each rank to a "
            "core of its own",
        )
    if available < len(local):
        return Finding(
            NAME,
            "warning",
            f"{len(local)} ranks on {host} share {counted(available, 'core')}",
            "measured times will say little about a strategy: start fewer ranks per node or "
            "request more cores (sbatch --cpus-per-task)",
        )
    threads = sum(rank.threads for _, rank in local)
    if threads > available:
        per_rank = ", ".join(str(rank.threads) for _, rank in local)
        return Finding(
            NAME,
            "warning",
            f"the ranks on {host} compute with {per_rank} threads on "
            f"{counted(available, 'core')} "
            f"(OMP_NUM_THREADS={local[0][1].omp_num_threads or 'unset'})",
            f"set OMP_NUM_THREADS={max(1, available // len(local))} in the launcher's environment",
        )
    loose = _beyond_slurm(local)
    if loose:
        return Finding(
            NAME,
            "warning",
            f"Slurm allocated {counted(loose, 'core')} on {host}, but the ranks may use others: "
            f"{_described(local)}",
            "request whole nodes (sbatch --exclusive) so that no other job computes there, or have "
            "TaskPlugin=task/affinity,task/cgroup set in slurm.conf",
        )
    return Finding(NAME, "ok", f"{_described(local)}; {counted(available, 'core')} available")


def _beyond_slurm(local: NumberedRanks) -> int | None:
    """Return how many cores Slurm allocated on a host, if its ranks may run on more than these."""
    allowed = {core for _, rank in local for core in rank.cores}
    allocated = _allocated(local)
    return allocated if allocated is not None and len(allowed) > allocated else None


def _allocated(local: NumberedRanks) -> int | None:
    return max((rank.slurm_cores for _, rank in local if rank.slurm_cores), default=None)


def _available_cores(local: NumberedRanks) -> int:
    """Return how many cores the ranks of a host could use together if they were not bound."""
    allowed = {core for _, rank in local for core in rank.cores}
    cores = max(len(allowed), *(rank.launcher_cores for _, rank in local))
    quotas = [rank.core_quota for _, rank in local if rank.core_quota is not None]
    limits = [max(1, math.floor(quota)) for quota in quotas]
    allocated = _allocated(local)
    if allocated is not None:
        limits.append(allocated)
    return min([cores, *limits])


def _crowd(local: NumberedRanks) -> NumberedRanks:
    """Return a group of ranks that have fewer cores than members, or an empty list.

    By Hall's theorem, every rank can have a core of its own exactly if there is no such group.
    """
    for _, holder in local:
        inside = [(n, rank) for n, rank in local if set(rank.cores) <= set(holder.cores)]
        if len(inside) > len(holder.cores):
            return inside
    return []


def _described(local: NumberedRanks) -> str:
    rank = local[0][1]
    threads = counted(rank.threads, "thread")
    if len(local) == 1:
        return f"1 rank on {counted(len(rank.cores), 'core')} with {threads}"
    same = all(other.cores == rank.cores for _, other in local)
    where = f"any of {counted(len(rank.cores), 'core')}" if same else "different cores"
    return f"{len(local)} ranks on {where} with {threads} each"


def allowed_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def launcher_cores() -> int:
    """Return the number of cores that the parent process may run on.

    A launcher binds its ranks, not itself: it could have given them any of its own cores.
    """
    try:
        return len(os.sched_getaffinity(os.getppid()))
    except OSError:
        return os.cpu_count() or 1


def core_quota(proc: Path = PROC, cgroups: Path = CONTROL_GROUPS) -> float | None:
    """Return the tightest limit [cores] of this process's control groups, or None without a limit.

    Containers and batch systems limit the processor time without removing cores from the affinity.
    """
    files = ("cpu.max", "cpu.cfs_quota_us")
    groups = control_groups("cpu", proc, cgroups)
    quotas = [_quota(group / file) for group in groups for file in files]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(file: Path) -> float | None:
    try:
        words = file.read_text(encoding="utf-8").split()
        if file.name != "cpu.max":
            words += file.with_name("cpu.cfs_period_us").read_text(encoding="utf-8").split()
        microseconds, period = (int(word) for word in words)
    except (OSError, ValueError):  # the file is missing or says `max`: no limit
        return None
    return microseconds / period if microseconds > 0 else None


def slurm_cores(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return how many cores Slurm allocated to this job on this node, or None outside a job."""
    number = environment.get("SLURM_CPUS_ON_NODE", "")
    return int(number) if number.isdigit() else None
