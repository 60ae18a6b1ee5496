"""Plans with given cuts and nothing else of interest."""

import itertools
from pathlib import Path

from hpc_lpm.planning.plan import Plan, StagePlan


def write_plan(cuts: list[int], model: str, path: Path) -> None:
    stages = tuple(
        StagePlan(start=a, stop=b, compute_seconds=0, send_bytes=0, memory_bytes=0)
        for a, b in itertools.pairwise(cuts)
    )
    Plan(
        planner="by hand",
        model=model,
        stages=stages,
        period_seconds=0,
        boundary_bytes=0,
        profile_sha256="",
    ).write(path)
