"""Races FBP from a script of one's own against the command `hpc-lpm train`.

    python -m benchmarks.script [--repeats 10] [--only resnet20 gpt] [--out FOLDER]

Both train the same model on two ranks of one thread each, with the same plan, data, optimizer and
seed, in turns on the same ranks, and end in the same weights, which is checked. Rates are samples
over the whole time of training, with the filling and draining of pipelines.
"""

import argparse
import sysconfig
from pathlib import Path

import pandas as pd

from benchmarks.engine import MICRO_BATCHES, RANKS, RATE, Race, plan
from benchmarks.race import Contestant, markdown, median, race, ratio, shown

SCRIPT, COMMAND = "script", "command"
RANKS_PROGRAM = Path(__file__).with_name("script_ranks.py")

_TEXT = f"text:{sysconfig.get_path('stdlib')}/asyncio,sequence=64"
RACES = {
    "mlp": Race("mlp", "digits,size=8", 64, 6),
    "resnet20": Race("resnet20", "digits,size=16", 64, 66),
    "gpt": Race("gpt,layers=4,width=128", _TEXT, 32, 100),
}
RECORDED = ["resnet20", "gpt"]
"""The races whose results are kept; the others are to try the benchmark."""


def run(name: str, folder: Path, repeats: int) -> pd.DataFrame:
    """Profile, plan and race one model, and return one row per training.

    Raises:
        RuntimeError: if two trainings ended in different weights.
    """
    entered = RACES[name]
    settings = {
        "model": entered.model,
        "dataset": entered.dataset,
        "strategy": "fbp",
        "plan": str(plan(name, entered, "replay", folder)),
        "batch_size": entered.batch_size,
        "micro_batches": MICRO_BATCHES,
        "steps": entered.steps,
        "weights": "replay",
        "optimizer": {"name": "momentum", "lr": 0.005},
    }
    contestants = [Contestant(label, settings) for label in (COMMAND, SCRIPT)]
    rows = race(contestants, RANKS, repeats, RANKS_PROGRAM).assign(model=name)
    hashes = set(rows["weights_sha256"])
    if len(hashes) != 1:
        raise RuntimeError(f"{name}: the trainings ended in {len(hashes)} different weights.")
    return rows


def report(rows: pd.DataFrame) -> str:
    """Return the table in Markdown."""
    lines = [
        [
            str(name),
            shown(median(group, SCRIPT, RATE), 1),
            shown(median(group, COMMAND, RATE), 1),
            shown(ratio(group, SCRIPT, COMMAND, RATE)),
            str(group["repeat"].nunique()),
            str(group["weights_sha256"].iloc[0])[:12],
        ]
        for name, group in rows.groupby("model", sort=False)
    ]
    columns = ["model", "script, samples/s", "command, samples/s", "script / command"]
    columns += ["n", "weights of both"]
    text = "FBP on two ranks, from a script and by the command: median (95 % interval).\n\n"
    return text + markdown(columns, lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=list(RACES), default=RECORDED)
    parser.add_argument("--out", type=Path, default=Path("results/reference/script"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([run(name, arguments.out, arguments.repeats) for name in arguments.only])
    rows.to_csv(arguments.out / "script.csv", index=False)
    text = report(rows)
    (arguments.out / "script.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
