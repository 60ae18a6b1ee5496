"""Compares predicted with measured rates of random runs: model, stages, schedule, micro-batches.

    python -m benchmarks.predicted_runs [--runs 60] [--seed 0] [--out FOLDER]

Half of the runs train models on two ranks, a core each, with a profile that the same ranks have
just taken; half train random layers that sleep, on 3 to 6 emulated devices. Each is predicted by
the simulation of its plan (`hpc-lpm simulate`), and measured by its median step in steady state.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd

from benchmarks.race import Contestant, markdown, race
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile

PROGRAM = Path(__file__).with_name("predicted_ranks.py")
MODELS = (
    ("mlp,layers=12,width=768", "digits,size=32", 16),
    ("resnet20", "digits,size=32", 8),
    ("resnet56", "digits,size=32", 4),
    ("vgg11", "digits,size=32", 8),
    ("gpt,layers=6,width=96", "text:hpc_lpm/planning,sequence=64", 8),
)
"""Models, their data, and the samples of a micro-batch that keep a pass above some milliseconds."""

WAYS: tuple[dict[str, Any], ...] = (
    {"strategy": "fbp", "weights": "live", "lead": 1},
    {"strategy": "fbp", "weights": "live", "lead": 2},
    {"strategy": "fbp", "weights": "replay", "lead": 1},
    {"strategy": "fbp", "weights": "stash", "lead": 2},
    {"strategy": "1f1b"},
    {"strategy": "gpipe"},
    {"strategy": "interleaved-1f1b", "chunks": 2},
    {"strategy": "zb-h1"},
    {"strategy": "zb-v"},
)
_STEPS = 14


def real_runs(random: Random, runs: int) -> Iterator[Contestant]:
    """Yield random runs of models on two ranks."""
    for number in range(runs):
        model, dataset, micro_batch = random.choice(MODELS)
        micro_batches = random.choice((2, 4, 6, 8))
        way = random.choice(WAYS)
        yield Contestant(
            f"{number}: {model.partition(',')[0]}, M = {micro_batches}, {_named(way)}",
            {
                "model": model,
                "dataset": dataset,
                "batch_size": micro_batch * micro_batches,
                "micro_batches": micro_batches,
                "steps": _STEPS,
                **way,
            },
        )


def emulated_runs(random: Random, runs: int, devices: int, folder: Path) -> Iterator[Contestant]:
    """Yield runs of random layers that sleep, on so many devices."""
    for number in range(runs):
        micro_batches = random.choice((4, 6, 8))
        way = random.choice(WAYS)
        path = folder / f"profile-{devices}-{number}.json"
        random_profile(random, layers=4 * devices).write(path)
        yield Contestant(
            f"{number}: emulated, M = {micro_batches}, {_named(way)}",
            {
                "model": f"replay:{path}",
                "dataset": "synthetic,samples=2048",
                "profile": str(path),
                "batch_size": 2 * micro_batches,
                "micro_batches": micro_batches,
                "steps": _STEPS,
                **way,
            },
        )


def random_profile(random: Random, layers: int) -> Profile:
    """Return a profile of layers that take 5 to 20 ms forward, and one to three times that back."""

    def layer(number: int) -> LayerProfile:
        forward = random.uniform(0.005, 0.02)
        backward = forward * random.uniform(1.0, 3.0)
        return LayerProfile(
            name=f"layer{number}",
            forward_seconds=forward,
            backward_seconds=backward,
            weight_gradient_seconds=backward * random.uniform(0.3, 0.6),
            output_bytes=random.randrange(1_000, 200_000, 4),
            parameter_bytes=4,
            activation_bytes=0,
        )

    return Profile(
        model="emulated",
        micro_batch=2,
        device="cpu",
        dtype="float32",
        layers=tuple(layer(number) for number in range(layers)),
        link=LinkProfile(latency_seconds=50e-6, bandwidth_bytes_per_second=2e9),
    )


def _named(way: dict[str, Any]) -> str:
    return ", ".join(str(value) for value in way.values())


def report(rows: pd.DataFrame) -> str:
    """Return the errors in Markdown: of each kind of run, and of the worst runs."""
    lines = []
    for kind, found in [*rows.groupby("kind", sort=False), ("all", rows)]:
        errors = 100 * found["error"].abs()
        cells = [
            str(kind),
            str(len(found)),
            f"{errors.median():.1f}",
            f"{errors.quantile(0.9):.1f}",
        ]
        lines.append([*cells, f"{errors.max():.1f}", f"{100 * found['error'].median():+.1f}"])
    columns = ["runs", "n", "median error, %", "9 of 10 within, %", "worst, %", "median bias, %"]
    worst = rows.sort_values("error", key=abs, ascending=False).head(5)
    shown = [
        [
            str(row["label"]),
            f"{row['predicted_samples_per_second']:.2f}",
            f"{row['measured_samples_per_second']:.2f}",
            f"{100 * row['error']:+.1f}",
        ]
        for _, row in worst.iterrows()
    ]
    names = ["the worst", "predicted, samples/s", "measured", "error, %"]
    return markdown(columns, lines) + "\n" + markdown(names, shown)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/reference/planner"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    random = Random(arguments.seed)
    half = arguments.runs // 2
    tables = [race(list(real_runs(random, half)), 2, 1, PROGRAM).assign(kind="two cores", stages=2)]
    with tempfile.TemporaryDirectory() as folder:
        rest = arguments.runs - half
        for number, devices in enumerate((3, 4, 6)):
            runs = rest // 3 + (number < rest % 3)
            contestants = list(emulated_runs(random, runs, devices, Path(folder)))
            found = race(contestants, devices, 1, PROGRAM)
            tables.append(found.assign(kind="emulated devices", stages=devices))
    rows = pd.concat(tables, ignore_index=True).drop(columns="repeat")
    rows.to_csv(arguments.out / "predicted-runs.csv", index=False)
    text = report(rows)
    (arguments.out / "predicted-runs.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
