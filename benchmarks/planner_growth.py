"""Measures how time and memory of the planner `lpm` grow with layers and stages."""

from math import log2

import numpy as np
import pandas as pd

from benchmarks.planner_chains import chain
from benchmarks.race import markdown
from benchmarks.worker import Timed, Worker
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.planners.lpm import optimal_cuts
from hpc_lpm.profile_file import Profile

SIZES = (
    (100, 4),
    (100, 10),
    (300, 4),
    (300, 10),
    (300, 32),
    (1_000, 10),
    (1_000, 32),
    (1_000, 100),
    (3_000, 32),
    (3_000, 100),
    (3_000, 300),
    (10_000, 100),
    (10_000, 320),
    (10_000, 1_024),
)
"""The numbers of layers and stages."""

REPEATS = 3
ONCE_SECONDS = 5.0
"""A run that takes longer than this is not repeated."""

LIMIT_SECONDS = 60.0


def prepare(layers: int, stages: int, overlap: bool) -> tuple[Profile, int, PlanOptions]:
    """Return a planning problem, with the default options of `hpc-lpm plan` except `overlap`."""
    return chain(layers), stages, PlanOptions(overlap=overlap)


def solve(problem: tuple[Profile, int, PlanOptions]) -> tuple[int, ...]:
    """Plan on all four levels, starting from the profile."""
    profile, stages, options = problem
    return optimal_cuts(CostModel(profile, stages, options))


def measure(
    sizes: tuple[tuple[int, int], ...] = SIZES,
    repeats: int = REPEATS,
    limit_seconds: float = LIMIT_SECONDS,
) -> pd.DataFrame:
    """Return one row per size and kind of transfer; seconds are empty if no run ended in time."""
    rows = []
    for layers, stages in sizes:
        for overlap in (True, False):
            runs = _runs(layers, stages, overlap, repeats, limit_seconds)
            seconds = float(np.median([run.seconds for run in runs])) if runs else None
            peak_bytes = max((run.peak_bytes for run in runs), default=None)
            rows.append((layers, stages, overlap, len(runs), seconds, limit_seconds, peak_bytes))
    columns = ["layers", "stages", "overlap", "n", "seconds", "limit_seconds", "peak_bytes"]
    return pd.DataFrame(rows, columns=columns)


def report(rows: pd.DataFrame) -> str:
    """Return the table in Markdown."""
    columns = ["L", "K", "transfers", "seconds", "peak MiB", "ns / (L K log2 L)", "n"]
    lines = []
    for row in rows.itertuples():
        solved = pd.notna(row.seconds)
        lines.append(
            [
                f"{row.layers:,}",
                f"{row.stages:,}",
                "overlapped" if row.overlap else "not overlapped",
                f"{row.seconds:.3f}" if solved else f"> {row.limit_seconds:g}",
                f"{row.peak_bytes / 2**20:.1f}" if solved else "",
                f"{1e9 * row.seconds / expected(row.layers, row.stages):.1f}" if solved else "",
                str(row.n),
            ]
        )
    return markdown(columns, lines)


def expected(layers: int, stages: int) -> float:
    """Return L K log2 L."""
    return layers * stages * log2(layers)


def _runs(
    layers: int, stages: int, overlap: bool, repeats: int, limit_seconds: float
) -> list[Timed]:
    """Return the runs that end within the limit, each in a fresh process; repeat no slow one."""
    runs: list[Timed] = []
    for _ in range(repeats):
        with Worker(prepare, solve, warm_up=(3, 2, overlap)) as worker:
            run = worker.time(layers, stages, overlap, limit_seconds=limit_seconds)
        if run is None:
            break
        runs.append(run)
        if run.seconds > ONCE_SECONDS:
            break
    return runs
