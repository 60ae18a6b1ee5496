"""The cores that ranks may run on, and whether every rank has one to itself."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from hpc_lpm.doctor.probe_report import RankReport, by_host
from hpc_lpm.doctor.situation import Finding, Situation

NAME = "binding"

Local = list[tuple[int, RankReport]]


def check_binding(situation: Situation) -> Finding:
    """Judge, host by host, whether every rank has a core to itself and threads to match."""
    if situation.job is None:
        return Finding(NAME, "warning", "not looked at: the ranks did not come", "mend the ranks")
    hosts = by_host(situation.job.ranks)
    findings = {host: _judge(host, local) for host, local in hosts.items()}
    for verdict in ("failed", "warning"):
        bad = {host: one for host, one in findings.items() if one.verdict == verdict}
        if bad:
            first = next(iter(bad.values()))
            more = f"; of {len(hosts)} nodes {len(bad)} are like that or similar"
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
    loose = _beyond_slurm(local)
    if loose:
        return Finding(
            NAME,
            "warning",
            f"Slurm allotted {loose} core(s) on {host}, but nothing holds the ranks to them: "
            f"{_described(local)}",
            "ask for whole nodes (sbatch --exclusive) so that no other job computes there, or have "
            "TaskPlugin=task/affinity,task/cgroup set in slurm.conf",
        )
    return Finding(NAME, "ok", f"{_described(local)}; {available} cores for {len(local)} rank(s)")


def _beyond_slurm(local: Local) -> int | None:
    """Return what Slurm allotted on a host whose ranks may run on more cores than that."""
    allowed = {core for _, rank in local for core in rank.cores}
    allotted = _allotted(local)
    return allotted if allotted is not None and len(allowed) > allotted else None


def _allotted(local: Local) -> int | None:
    return max((rank.slurm_cores for _, rank in local if rank.slurm_cores), default=None)


def _available_cores(local: Local) -> int:
    """Return how many cores the ranks of a host could have used together, however bound."""
    allowed = {core for _, rank in local for core in rank.cores}
    cores = max(len(allowed), *(rank.launcher_cores for _, rank in local))
    quotas = [rank.core_quota for _, rank in local if rank.core_quota is not None]
    limits = [max(1, math.floor(quota)) for quota in quotas]
    allotted = _allotted(local)
    if allotted is not None:
        limits.append(allotted)
    return min([cores, *limits])


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


def allowed_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def launcher_cores() -> int:
    """Return on how many cores the process that started this one may run.

    A launcher binds its ranks, not itself: what it may use, it could have given to them.
    """
    try:
        return len(os.sched_getaffinity(os.getppid()))
    except OSError:
        return os.cpu_count() or 1


def core_quota(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the tightest limit, in cores, of this process's control groups, None without one.

    Containers and batch systems limit the time on cores without hiding any core from affinity.
    """
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if not controllers:  # version 2: one tree for all controllers
            quotas += _quotas(cgroups, path, "cpu.max")
        elif "cpu" in controllers.split(","):
            quotas += _quotas(cgroups / "cpu", path, "cpu.cfs_quota_us")
    return min(quotas, default=None)


def _quotas(root: Path, path: str, name: str) -> Iterator[float]:
    group = root / path.lstrip("/")
    # A limit on any group above holds as well.
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        quota = _quota(folder / name)
        if quota is not None:
            yield quota


def _quota(file: Path) -> float | None:
    try:
        words = file.read_text(encoding="utf-8").split()
        if file.name != "cpu.max":
            words += file.with_name("cpu.cfs_period_us").read_text(encoding="utf-8").split()
        microseconds, period = (int(word) for word in words)
    except (OSError, ValueError):  # not there, or `max`: no limit
        return None
    return microseconds / period if microseconds > 0 else None


def slurm_cores(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return how many cores Slurm allotted to this job on this node, None outside a job."""
    number = environment.get("SLURM_CPUS_ON_NODE", "")
    return int(number) if number.isdigit() else None
