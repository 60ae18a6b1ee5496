"""The tiny run that faults are done to, and what is done to its checkpoints."""

import os
import random
from pathlib import Path

from tests.mpi.test_bad_input import LAYERS, write_plan

SEED = int(os.environ.get("HPC_LPM_FAULT_SEED", "18"))
STEPS, SAVE_EVERY = 1600, 60
LIMIT_SECONDS = 5
ENDED_WITHIN_SECONDS = 120.0


def training(folder: Path, *options: str, limit_seconds: int = LIMIT_SECONDS) -> list[str]:
    """Return the options of `hpc-lpm train`; the plan is written to the folder."""
    plan = write_plan(folder / "plan.json", LAYERS, 2)
    return [
        *("--model", "mlp,width=8", "--dataset", "digits,size=8", "--strategy", "fbp"),
        *("--plan", str(plan), "--batch-size", "16", "--micro-batches", "4", "--lr", "0.01"),
        *("--steps", str(STEPS), "--checkpoint-steps", str(SAVE_EVERY), "--keep-checkpoints", "3"),
        *("--receive-timeout", f"{limit_seconds}s", *options),
    ]


def flip_a_bit(path: Path, draw: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def newest_checkpoint(out: Path) -> Path:
    """Return the folder of the newest checkpoint of a run."""
    found = (out / "checkpoint").glob("step-*")
    return max(found, key=lambda path: int(path.name.split("-")[1]))
