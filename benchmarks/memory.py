"""Measures the peak memory of FBP's weight policies and of DeepSpeed 1F1B on the same plan.

    python -m benchmarks.memory --model resnet56 --dataset digits,size=32 --out FOLDER

All contestants run interleaved, on the same cuts and under the same settings of glibc's malloc:
blocks of at least 64 KiB, such as tensors, are mapped one by one and returned when freed, so that
the resident set follows the live tensors. Since that costs time, throughput is not compared here.
Writes `memory.csv` and `memory.md` with the median over the repeats, one row per contestant and
rank.
"""

import argparse
import csv
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, fields
from math import ceil
from pathlib import Path
from statistics import median

from benchmarks.race import markdown
from hpc_lpm.cluster.launchers import rank_command, rank_environment
from hpc_lpm.engine.pipeline.transport.channel import RECEIVES_AHEAD
from hpc_lpm.engine.result import RunResult
from hpc_lpm.planning.options import OPTIMIZER_COPIES
from hpc_lpm.planning.plan import Plan
from hpc_lpm.profile_file import Profile

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_MMAP_MAX_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
}
CONTESTANTS = {
    "fbp replay": ("--strategy", "fbp", "--weights", "replay"),
    "fbp live": ("--strategy", "fbp", "--weights", "live"),
    "fbp stash": ("--strategy", "fbp", "--weights", "stash"),
    "deepspeed-1f1b": ("--strategy", "deepspeed-1f1b"),
}


@dataclass(frozen=True)
class Row:
    """The bytes that one contestant takes on one rank.

    The peaks are measured: by how much the resident set exceeds what it was before the model was
    built, as median, least and most over the repeats. The others follow from profile and plan: the
    weights and their copies (gradients, optimizer, stashed versions), and the messages that our
    engine holds beside the inputs in flight (receives posted ahead and one being sent, both ways).
    """

    contestant: str
    rank: int
    peak_bytes: int
    least_peak_bytes: int
    most_peak_bytes: int
    relative_to_deepspeed: float
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    stashed_bytes: int
    boundary_buffer_bytes: int


def main() -> None:
    """Run the comparison and write its files."""
    options = _options()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    profile, plan = out / "profile.json", out / "plan.json"
    size = options.batch_size // options.micro_batches
    data = ["--dataset", options.dataset]
    _run(
        ["profile", options.model, *data, "--micro-batch", str(size), "--out", str(profile)],
        options.stages,
        out / "profile.log",
    )
    planning = ["plan", str(profile), "--stages", str(options.stages), "--out", str(plan)]
    planning += ["--micro-batches", str(options.micro_batches), "--optimizer", options.optimizer]
    _run(planning, 1, out / "plan.log")
    training = ["train", "--model", options.model, *data, "--plan", str(plan)]
    training += ["--batch-size", str(options.batch_size), "--steps", str(options.steps)]
    training += ["--micro-batches", str(options.micro_batches), "--optimizer", options.optimizer]
    # Small enough that no policy diverges within these few steps from the start.
    training += ["--lr", "0.005"]
    results: dict[str, list[RunResult]] = {name: [] for name in CONTESTANTS}
    for repeat in range(options.repeats):
        for name, chosen in CONTESTANTS.items():
            folder = out / "runs" / f"{name.replace(' ', '-')}-{repeat}"
            folder.mkdir(parents=True, exist_ok=True)
            arguments = [*training, *chosen, "--out", str(folder)]
            _run(arguments, options.stages, folder / "train.log")
            results[name].append(RunResult.read(folder / "result.json"))
    rows = table(
        results,
        Profile.read(profile),
        Plan.read(plan),
        micro_batches=options.micro_batches,
        optimizer_copies=OPTIMIZER_COPIES[options.optimizer],
    )
    _write(rows, out)


def table(
    results: dict[str, list[RunResult]],
    profile: Profile,
    plan: Plan,
    *,
    micro_batches: int,
    optimizer_copies: int,
) -> list[Row]:
    """Return the rows of the comparison, contestant by contestant, from their results."""
    rows = []
    for name, repeats in results.items():
        for rank, stage in enumerate(plan.stages):
            peaks = [result.peak_memory_bytes[rank] for result in repeats]
            rivals = [result.peak_memory_bytes[rank] for result in results["deepspeed-1f1b"]]
            layers = profile.layers[stage.start : stage.stop]
            weights = sum(layer.parameter_bytes for layer in layers)
            delay = len(plan.stages) - 1 - rank
            versions = ceil(delay / micro_batches) if name == "fbp stash" else 0
            incoming = plan.stages[rank - 1].send_bytes if rank else 0
            held = (RECEIVES_AHEAD + 1) * (incoming + stage.send_bytes)
            rows.append(
                Row(
                    contestant=name,
                    rank=rank,
                    peak_bytes=int(median(peaks)),
                    least_peak_bytes=min(peaks),
                    most_peak_bytes=max(peaks),
                    relative_to_deepspeed=round(median(peaks) / median(rivals), 4),
                    weight_bytes=weights,
                    gradient_bytes=weights,
                    optimizer_bytes=optimizer_copies * weights,
                    stashed_bytes=versions * weights,
                    boundary_buffer_bytes=0 if name == "deepspeed-1f1b" else held,
                )
            )
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--optimizer", choices=list(OPTIMIZER_COPIES), default="momentum")
    return parser.parse_args()


def _run(arguments: list[str], ranks: int, log: Path) -> None:
    environment = rank_environment(os.environ, threads=1) | ALLOCATOR
    with log.open("w") as stream:
        done = subprocess.run(
            rank_command(arguments, ranks, "mpirun"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{' '.join(arguments[:1])} ended with {done.returncode}, see {log}.")


def _write(rows: list[Row], out: Path) -> None:
    names = [field.name for field in fields(Row)]
    with (out / "memory.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    headings = [name.removesuffix("_bytes").replace("_", " ") for name in names]
    text = f"`{' '.join(sys.orig_argv[1:])}`: MiB, median of the repeats.\n\n"
    text += markdown(headings, [_cells(row) for row in rows])
    (out / "memory.md").write_text(text)
    sys.stdout.write(text)


def _cells(row: Row) -> list[str]:
    return [
        f"{value / 2**20:.1f}" if name.endswith("_bytes") else str(value)
        for name, value in asdict(row).items()
    ]


if __name__ == "__main__":
    main()
