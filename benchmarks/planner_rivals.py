"""Compares our planner with other partitioners by slowest stage and time, on equal problems."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from benchmarks.planner_chains import measured_ticks, random_ticks
from benchmarks.planner_contestants import (
    OURS,
    RIVALS,
    Contestant,
    prepare,
    slowest_ticks,
)
from benchmarks.race import markdown
from benchmarks.worker import Timed, Worker
from hpc_lpm.profile_file import Profile

EVERYBODY = (OURS, *RIVALS)
PROFILE = Path("results/reference/engine/profile-resnet110.json")
REPEATS = 5
ONCE_SECONDS = 5.0
"""A contestant that takes longer than this runs once per case."""

SMALL_CASES = 400
SMALL_LIMIT_SECONDS = 10.0


@dataclass(frozen=True)
class Case:
    """Layer times in ticks and a number of stages; runs are ended after `limit_seconds`."""

    name: str
    ticks: list[int]
    stages: int
    limit_seconds: float


SIZES = ((100, 8, 30.0), (300, 16, 30.0), (1_000, 64, 240.0), (3_000, 128, 30.0))
SIZES += ((10_000, 1_024, 30.0),)
"""The layers, stages and limit in seconds of the random cases."""

PROFILE_STAGES = (4, 16, 64)
PROFILE_LIMIT_SECONDS = 30.0


def cases(
    sizes: tuple[tuple[int, int, float], ...] = SIZES,
    profile: Path = PROFILE,
    profile_stages: tuple[int, ...] = PROFILE_STAGES,
) -> list[Case]:
    """Return the cases, from small to large within each name."""
    measured = Profile.read(profile)
    ticks = measured_ticks(measured)
    return [
        *(Case(measured.model, ticks, stages, PROFILE_LIMIT_SECONDS) for stages in profile_stages),
        *(
            Case("log-normal", random_ticks(layers, np.random.default_rng(layers)), *rest)
            for layers, *rest in sizes
        ),
    ]


def small_cases(count: int = SMALL_CASES) -> list[Case]:
    """Return random cases of 4 to 16 layers and 2 to 6 stages, with more layers than stages."""
    noise = np.random.default_rng(0)
    found = []
    for _ in range(count):
        layers = int(noise.integers(4, 17))
        stages = int(noise.integers(2, min(layers, 7)))
        ticks = random_ticks(layers, noise)
        found.append(Case("small", ticks, stages, SMALL_LIMIT_SECONDS))
    return found


def race(
    entered: list[Case],
    repeats: int = REPEATS,
    contestants: tuple[Contestant, ...] = EVERYBODY,
) -> pd.DataFrame:
    """Let all contestants solve every case in turn; return one row per case and contestant.

    `slowest_relative` is the slowest stage over the fastest one that any contestant found,
    `seconds` the median of `n` runs and `seconds_relative` its ratio to `lpm`. They are empty where
    `outcome` is not `solved`: it is `limit` for a contestant that took too long, and `not run` in
    the larger cases of that name.
    """
    rows: list[dict[str, object]] = []
    given_up: set[tuple[str, str]] = set()
    with _Field(contestants) as field:
        for case in entered:
            runs: dict[str, list[Timed]] = {
                contestant.name: []
                for contestant in contestants
                if (case.name, contestant.name) not in given_up
            }
            for repeat in range(repeats):
                for name, done in runs.items():
                    if repeat and (len(done) < repeat or done[0].seconds > ONCE_SECONDS):
                        continue
                    timed = field.time(name, case)
                    if timed is None:
                        given_up.add((case.name, name))
                    else:
                        done.append(timed)
            rows += _rows(case, runs, contestants)
    return pd.DataFrame(rows)


def count_misses(
    entered: list[Case], contestants: tuple[Contestant, ...] = EVERYBODY
) -> pd.DataFrame:
    """Return how often each contestant missed the best slowest stage, and by how much at most."""
    ratios: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    with _Field(contestants) as field:
        for case in entered:
            slowest = {}
            for name in ratios:
                timed = field.time(name, case)
                if timed is not None:
                    slowest[name] = slowest_ticks(case.ticks, timed.result)
            for name, ticks in slowest.items():
                ratios[name].append(ticks / min(slowest.values()))
    return pd.DataFrame(
        [
            {
                "contestant": name,
                "cases": len(values),
                "missed": sum(value > 1 for value in values),
                "worst_slowest_relative": max(values, default=None),
            }
            for name, values in ratios.items()
        ]
    )


def beaten(rows: pd.DataFrame, misses: pd.DataFrame) -> bool:
    """Tell if any contestant ever found a faster slowest stage than our planner."""
    ours = rows[rows["contestant"] == OURS.name]
    missed = misses.loc[misses["contestant"] == OURS.name, "missed"]
    return bool((ours["slowest_relative"] > 1).any() or missed.sum() > 0)


def report(rows: pd.DataFrame) -> str:
    """Return the table of the race in Markdown."""
    columns = ["layer times", "L", "K", "contestant", "slowest stage / best", "seconds"]
    columns += ["seconds / those of lpm", "n"]
    lines = []
    for row in rows.itertuples():
        cells = [row.case, f"{row.layers:,}", f"{row.stages:,}", row.contestant]
        if row.outcome == "solved":
            cells += [f"{row.slowest_relative:.4f}", f"{row.seconds:.4g}"]
            cells += [
                f"{row.seconds_relative:.3g}" if pd.notna(row.seconds_relative) else "",
                str(row.n),
            ]
        elif row.outcome == "limit":
            cells += ["", f"> {row.limit_seconds:g}", "", "0"]
        else:
            cells += ["", "not run", "", "0"]
        lines.append(cells)
    return markdown(columns, lines)


def report_misses(misses: pd.DataFrame) -> str:
    """Return the table of missed optima in Markdown."""
    columns = ["contestant", "cases", "best slowest stage missed in", "by at most"]
    return markdown(
        columns,
        [
            [
                row.contestant,
                str(row.cases),
                str(row.missed),
                f"{row.worst_slowest_relative - 1:.1%}",
            ]
            for row in misses.itertuples()
        ],
    )


class _Field:
    """All contestants, each in a process of its own that waits while another one works."""

    def __init__(self, contestants: tuple[Contestant, ...]) -> None:
        self._solvers = {contestant.name: contestant.solve for contestant in contestants}
        self._stack = ExitStack()
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def time(self, name: str, case: Case) -> Timed | None:
        """Return the timed run of one contestant, or None if the limit ended it."""
        if name not in self._workers:
            worker = Worker(prepare, self._solvers[name], warm_up=([1, 2, 3], 2))
            self._workers[name] = self._stack.enter_context(worker)
        timed = self._workers[name].time(case.ticks, case.stages, limit_seconds=case.limit_seconds)
        if timed is None:
            del self._workers[name]
        return timed


def _rows(
    case: Case, runs: dict[str, list[Timed]], contestants: tuple[Contestant, ...]
) -> list[dict[str, object]]:
    slowest = {
        name: slowest_ticks(case.ticks, done[0].result) for name, done in runs.items() if done
    }
    medians = {
        name: float(np.median([run.seconds for run in done])) for name, done in runs.items() if done
    }
    rows = []
    for contestant in contestants:
        name = contestant.name
        solved = name in slowest
        rows.append(
            {
                "case": case.name,
                "layers": len(case.ticks),
                "stages": case.stages,
                "contestant": name,
                "outcome": "solved" if solved else "limit" if name in runs else "not run",
                "slowest_relative": slowest[name] / min(slowest.values()) if solved else None,
                "seconds": medians.get(name),
                "seconds_relative": (
                    medians[name] / medians[OURS.name] if solved and OURS.name in medians else None
                ),
                "n": len(runs.get(name, [])),
                "limit_seconds": case.limit_seconds,
            }
        )
    return rows
