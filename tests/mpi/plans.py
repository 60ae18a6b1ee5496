"""Plans with given cuts and nothing else of interest."""

import itertools
from pathlib import Path

from hpc_lpm.planning.plan import Plan, StagePlan
from hpc_lpm.schedules.registry import SCHEDULES


def write_plan(cuts: list[int], model: str, path: Path, **options: object) -> None:
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
        options=options,
    ).write(path)


def chunks_of(case: dict) -> int:
    """How many stages each device holds in a case of train_cases.py."""
    name = case["strategy"]
    usual = SCHEDULES.named(name).chunks if name in SCHEDULES.names() else 1
    return case.get("chunks", usual)


def placing(case: dict) -> dict:
    """The options of a plan that say so."""
    chunks = chunks_of(case)
    return {"schedule": case["strategy"], "chunks": chunks} if chunks > 1 else {}
