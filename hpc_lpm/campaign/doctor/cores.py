"""How many cores this process may use: its affinity and the quota of its control groups."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path


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
