"""The control groups of this process, by which containers and batch systems limit it."""

from collections.abc import Iterator
from pathlib import Path

PROC, CONTROL_GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def control_groups(
    controller: str, proc: Path = PROC, cgroups: Path = CONTROL_GROUPS
) -> Iterator[Path]:
    """Yield the folders of this process's groups for a controller, such as `cpu`.

    The groups around them, whose limits apply as well, follow each of them. Nothing is yielded
    where the kernel tells of no groups.
    """
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 has one tree for all controllers.
        root = cgroups / controller if controllers else cgroups
        group = root / path.lstrip("/")
        yield from (each for each in (group, *group.parents) if each.is_relative_to(root))
