"""Measures the planner's time and memory, and compares it with other partitioners, on one core.

    python -m benchmarks.planner [--small] [--out FOLDER]

*Growth* measures `lpm` on chains of layers with random times and sizes, with the default options of
`hpc-lpm plan`. In *rivals* all contestants partition the same layer times, where nothing else has a
cost, and are compared by their slowest stage. Every run is timed in a process of its own, without
imports and the preparation of its input, and ended if it takes too long. The program fails if a
contestant finds a faster slowest stage than `lpm`.
"""

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from benchmarks import planner_growth, planner_rivals
from benchmarks.planner_chains import SPREAD
from benchmarks.planner_figure import draw
from hpc_lpm.cluster.launchers import rank_environment
from hpc_lpm.profiling.job import describe_environment

PACKAGES = ("numpy", "deepspeed", "torchgpipe")
SMALL_GROWTH = ((60, 4), (120, 8))
SMALL_RACE = ((40, 4, 30.0), (80, 8, 30.0))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small sizes: seconds, not minutes")
    parser.add_argument("--out", type=Path, default=Path("results/reference/planner"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ.update(rank_environment(os.environ, threads=1))
    if arguments.small:
        growth = planner_growth.measure(SMALL_GROWTH, repeats=1)
        rows = planner_rivals.race(planner_rivals.cases(SMALL_RACE, profile_stages=(4,)), repeats=2)
        misses = planner_rivals.count_misses(planner_rivals.small_cases(20))
    else:
        growth = planner_growth.measure()
        rows = planner_rivals.race(planner_rivals.cases())
        misses = planner_rivals.count_misses(planner_rivals.small_cases())
    write(growth, rows, misses, arguments.out)
    if planner_rivals.beaten(rows, misses):
        sys.exit("A rival found a faster slowest stage than lpm: see the columns of the tables.")


def write(growth: pd.DataFrame, rows: pd.DataFrame, misses: pd.DataFrame, out: Path) -> None:
    """Write `planner.md`, its tables as CSV and the figure."""
    growth.to_csv(out / "growth.csv", index=False)
    rows.to_csv(out / "rivals.csv", index=False)
    misses.to_csv(out / "misses.csv", index=False)
    (out / "planner.svg").write_text(draw(growth, rows))
    facts = describe_environment(torch.device("cpu"), threads=1)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    text = (
        f"One core of {facts['cpu']}; Python {facts['python']}, {packages}. Seconds are the "
        "median of n runs; a run of more than 5 s is not repeated, a much longer one is ended.\n\n"
        "`lpm` on random chains, all four levels, default options (2 % tolerance, replay). Times "
        f"and sizes of layers are log-normal, the standard deviation of the logarithm {SPREAD}. "
        "Memory is the peak of the resident set above that before the call, the most of n.\n\n"
        f"{planner_growth.report(growth)}\n"
        "All contestants on the same layer times, where nothing else has a cost: log-normal as "
        "above, or measured (the profile of resnet110 in results/reference/engine). The plain "
        "dynamic programme is PipeDream's, O(L^2 K), with numpy in its inner loop (planner "
        "`pipedream`). "
        "A contestant that was ended is not run on more layers.\n\n"
        f"{planner_rivals.report(rows)}\n"
        "Small random cases, 4 to 16 layers in 2 to 6 stages.\n\n"
        f"{planner_rivals.report_misses(misses)}\n"
        "![Seconds of lpm over L K log L, and of all contestants over L K](planner.svg)\n"
    )
    (out / "planner.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
