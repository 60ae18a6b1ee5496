"""Measures what saving a checkpoint behind training costs a run on two ranks.

    python -m benchmarks.saving --model vgg16 --dataset digits,size=32 --out FOLDER

Runs come in pairs, interleaved: one saves every so many steps, the other one drains at the same
steps and saves nothing. What the first takes longer, from the first step to the last file, is what
its checkpoints have cost: copies, waits, and the cores that the writing takes from the steps.
Checkpoints are more frequent here than in a training, so that their cost stands out; it is given
for each, and as a share of a minute. Writes `saving.csv` and `saving.md`.
"""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from benchmarks.race import markdown
from hpc_lpm.campaign.statistics import estimate
from hpc_lpm.cluster.launchers import rank_command, rank_environment
from hpc_lpm.engine.checkpoint.store import FOLDER, checkpoints_of
from hpc_lpm.engine.result import RunResult

RANKS = 2
MINUTE_SECONDS = 60.0


@dataclass(frozen=True)
class Row:
    """What one checkpoint costs a model, on the rank that it costs most.

    `slower_seconds` is the median of the pairs with its 95 % interval; `percent_of_a_minute` is the
    same as a share of the time between two checkpoints, if there is one a minute.
    """

    model: str
    checkpoint_bytes: int
    pairs: int
    checkpoints: int
    step_seconds: float
    drain_seconds: float
    copy_seconds: float
    wait_seconds: float
    behind_seconds: float
    slower_seconds: float
    slower_seconds_from: float
    slower_seconds_to: float
    percent_of_a_minute: float
    percent_of_a_minute_to: float


def main() -> None:
    """Run the pairs and write the table."""
    options = _options()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    size = options.batch_size // options.micro_batches
    profile, plan = out / "profile.json", out / "plan.json"
    data = ["--dataset", options.dataset]
    _run(
        ["profile", options.model, *data, "--micro-batch", str(size), "--out", str(profile)],
        RANKS,
        out / "profile.log",
    )
    planning = ["plan", str(profile), "--stages", str(RANKS), "--out", str(plan)]
    _run([*planning, "--micro-batches", str(options.micro_batches)], 1, out / "plan.log")
    # None after the last step: whoever waits for a file at the end does so once in a training.
    steps = (options.checkpoints + 1) * options.every - 1
    drains = [str(options.every * (number + 1)) for number in range(options.checkpoints)]
    training = ["train", "--model", options.model, *data, "--strategy", "fbp", "--plan", str(plan)]
    training += ["--batch-size", str(options.batch_size), "--lr", "0.005", "--steps", str(steps)]
    training += ["--micro-batches", str(options.micro_batches), "--checkpoint-epochs", "0"]
    ways = {
        "saving": ["--checkpoint-steps", str(options.every)],
        "calm": ["--drain-at", ",".join(drains)],
    }
    results: dict[str, list[RunResult]] = {name: [] for name in ways}
    held_bytes = 0
    for pair in range(options.pairs):
        for name, chosen in list(ways.items())[:: 1 if pair % 2 else -1]:
            folder = out / "runs" / f"{name}-{pair}"
            folder.mkdir(parents=True, exist_ok=True)
            _run([*training, *chosen, "--out", str(folder)], RANKS, folder / "train.log")
            results[name].append(RunResult.read(folder / "result.json"))
            for path in checkpoints_of(folder / FOLDER)[:1]:
                held_bytes = sum(each.stat().st_size for each in path.iterdir())
    row = row_of(options.model, held_bytes, results["saving"], results["calm"])
    _write(row, out)


def row_of(
    model: str, checkpoint_bytes: int, saving: Sequence[RunResult], calm: Sequence[RunResult]
) -> Row:
    """Return the row of a model from the results of its pairs.

    Raises:
        ValueError: if the runs of a pair have not computed the same.
    """
    slower = []
    for first, second in zip(saving, calm, strict=True):
        if first.weights_sha256 != second.weights_sha256 or first.drains != second.drains:
            raise ValueError(f"a run of {model} that saved has computed something else")
        stopped = max(first.saving_copy_seconds) + max(first.saving_wait_seconds)
        longer = first.training_seconds + stopped - second.training_seconds
        slower.append(longer / first.checkpoints_saved)
    found = estimate(slower)
    low, high = found.bounds()

    def each(lists: str) -> float:
        return median(max(getattr(result, lists)) / result.checkpoints_saved for result in saving)

    return Row(
        model=model,
        checkpoint_bytes=checkpoint_bytes,
        pairs=len(slower),
        checkpoints=saving[0].checkpoints_saved,
        step_seconds=median(median(result.step_seconds) for result in calm),
        drain_seconds=median(result.drain_seconds / len(result.drains) for result in calm),
        copy_seconds=each("saving_copy_seconds"),
        wait_seconds=each("saving_wait_seconds"),
        behind_seconds=each("saving_behind_seconds"),
        slower_seconds=found.median,
        slower_seconds_from=low,
        slower_seconds_to=high,
        percent_of_a_minute=100 * found.median / MINUTE_SECONDS,
        percent_of_a_minute_to=100 * high / MINUTE_SECONDS,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--checkpoints", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5)
    return parser.parse_args()


def _run(arguments: list[str], ranks: int, log: Path) -> None:
    with log.open("w") as stream:
        done = subprocess.run(
            rank_command(arguments, ranks, "mpirun"),
            env=rank_environment(os.environ, threads=1),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{' '.join(arguments[:1])} ended with {done.returncode}, see {log}.")


def _write(row: Row, out: Path) -> None:
    names = [field.name for field in fields(Row)]
    with (out / "saving.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerow(asdict(row))
    headings = [name.replace("_", " ") for name in names]
    text = f"`{' '.join(sys.orig_argv[1:])}`: per checkpoint.\n\n"
    text += markdown(headings, [_cells(row)])
    (out / "saving.md").write_text(text)
    sys.stdout.write(text)


def _cells(row: Row) -> list[str]:
    return [
        f"{value:.3f}" if isinstance(value, float) else str(value) for value in asdict(row).values()
    ]


if __name__ == "__main__":
    main()
