"""Plans with given cuts and nothing else of interest."""

import itertools
from pathlib import Path

from hpc_lpm.engine.settings import TrainSettings, checked_settings
from hpc_lpm.engine.strategies.registry import strategy_named
from hpc_lpm.planning.plan import Plan, StagePlan


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
    return case.get("chunks") or strategy_named(case["strategy"]).stages_on(_like(case), 1)


def placing(case: dict) -> dict:
    """The options of a plan that say so."""
    chunks = chunks_of(case)
    wanted = strategy_named(case["strategy"]).plan_options(_like(case))
    return {"schedule": wanted["schedule"], "chunks": chunks} if chunks > 1 else {}


def _like(case: dict) -> TrainSettings:
    return checked_settings(model="mlp", dataset="digits", strategy=case["strategy"], steps=1)
