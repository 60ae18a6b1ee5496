"""Runs trainings in one process each, two at a time, and keeps what they end with."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd

from benchmarks.delay.families import FAMILIES, Family
from benchmarks.delay.methods import method_of
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.models.registry import create_model
from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.profiling.job import profile_in_job

AT_A_TIME = 2


@dataclass(frozen=True, order=True)
class Run:
    """One training.

    `length` is that of the run over the family's; `corrections` are options of `hpc-lpm train` as
    JSON, such as `{"recipe": "auto"}`, with the strategy if it is a rival of FBP.
    """

    family: str
    stages: int
    micro_batches: int
    corrections: str
    rate: float
    length: float
    seed: int

    @property
    def key(self) -> str:
        """Return a name that depends on everything that decides the outcome."""
        family = asdict(FAMILIES[self.family])
        del family["margin"]  # says what counts as reached, which decides no outcome
        described = json.dumps([asdict(self), family], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]


class Outcomes:
    """Outcomes of runs in a file of one JSON line each, so that a part can be resumed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        lines = path.read_text().splitlines() if path.exists() else []
        self._rows = {row["key"]: row for row in map(json.loads, lines)}

    def add(self, runs: Iterable[Run], folder: Path) -> None:
        """Train what has no outcome yet."""
        missing = sorted({run for run in runs if run.key not in self._rows})
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            for number, row in enumerate(pool.map(lambda run: _outcome(run, folder), missing), 1):
                with self._lock, self._path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                    self._rows[row["key"]] = row
                print(f"{number} of {len(missing)}: {row['label']}", flush=True)

    def table(self, runs: Iterable[Run]) -> pd.DataFrame:
        """Return one row for each run that has an outcome."""
        rows = [self._rows[run.key] for run in sorted(set(runs)) if run.key in self._rows]
        return pd.DataFrame(rows).drop(columns=["key", "label"])


def _outcome(run: Run, folder: Path) -> dict[str, Any]:
    family = FAMILIES[run.family]
    with tempfile.TemporaryDirectory() as out:
        file = Path(out) / "settings.json"
        file.write_text(json.dumps(_settings(run, family, folder)))
        command = [sys.executable, "-m", "hpc_lpm", "train", "--settings", str(file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, "--out", out, "--json"],
            env=environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        result = json.loads((Path(out) / "result.json").read_text())
    last = [each for each in result["evaluations"] if each["part"] == "test"][-1]
    losses = result["train_loss"]
    outcome = 100 * result["test_accuracy"][-1] if family.metric == "accuracy" else last["loss"]
    return {
        "key": run.key,
        "label": f"{run.family} K={run.stages} M={run.micro_batches} {run.corrections} "
        f"rate {run.rate} length {run.length} seed {run.seed}: {family.metric} {outcome:.4f}",
        **asdict(run),
        "outcome": outcome,
        "train_loss": sum(losses[-50:]) / len(losses[-50:]),
        "seconds": result["training_seconds"],
        "weights_sha256": result["weights_sha256"],
    }


def _settings(run: Run, family: Family, folder: Path) -> dict[str, Any]:
    steps = round(run.length * family.steps)
    settings: dict[str, Any] = {
        "model": family.model,
        "dataset": family.dataset,
        "batch_size": family.batch_size,
        "micro_batches": run.micro_batches,
        "steps": steps,
        "seed": run.seed,
        "optimizer": {**family.optimizer, "lr": run.rate},
        "learning_rate": {
            "schedule": "cosine",
            "warmup_steps": round(run.length * family.warmup_steps),
        },
        "checkpoint_epochs": 0,
        "trace_steps": 0,
    }
    if run.stages == 1:
        return {**settings, "strategy": "sequential"}
    plan = even_plan(run.family, run.stages, run.micro_batches, folder)
    return {
        **settings,
        "plan": str(plan),
        "in_one_process": True,
        **method_of(run.corrections),
    }


_PLANNING = Lock()


def even_plan(family: str, stages: int, micro_batches: int, folder: Path) -> Path:
    """Return the plan that cuts a family's model evenly by number of layers, whatever they cost."""
    with _PLANNING:
        return _even_plan(family, stages, micro_batches, folder)


@cache
def _even_plan(family: str, stages: int, micro_batches: int, folder: Path) -> Path:
    chosen = FAMILIES[family]
    data = load_dataset(chosen.dataset)
    model = create_model(chosen.model, data.shape)
    layers = len(model.layers)
    profile = profile_in_job(model, data, chosen.batch_size // micro_batches, repeats=1)
    cost = CostModel(profile, stages, PlanOptions(weights="live", micro_batches=micro_batches))
    cuts = tuple(round(layers * stage / stages) for stage in range(stages + 1))
    path = folder / f"plan-{family}-{stages}-{micro_batches}.json"
    price_plan(cost, cuts, "even cuts", "").write(path)
    return path
