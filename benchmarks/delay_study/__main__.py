"""Runs a part of the study, or all parts, and writes a table of each.

    python -m benchmarks.delay_study --out FOLDER [--part NAME ...] [--updates N] [--seeds N]

Trainings whose results are in FOLDER/runs.jsonl are not run again.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.delay_study.parts import LENGTHS, PARTS
from benchmarks.delay_study.table import losses, ratios
from benchmarks.delay_study.trials import Results


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--updates", type=int, default=500, help="of the shortest training")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.out / "runs.jsonl")
    for name in arguments.part:
        trials = [
            replace(trial, seed=seed)
            for seed in range(arguments.seeds)
            for trial in PARTS[name](arguments.updates)
        ]
        results.obtain(trials)
        text = losses(trials, results)
        if name == LENGTHS:
            text += "\n" + ratios(trials, results)
        (arguments.out / f"{name}.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
