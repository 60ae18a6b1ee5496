"""One row a run: the table that everything else is computed from."""

import math
from pathlib import Path

import pandas as pd

from hpc_lpm.campaign.runs import Run
from hpc_lpm.files import write_text_atomically

COLUMNS = (
    "trial",
    "model",
    "dataset",
    "strategy",
    "planner",
    "ranks",
    "seed",
    "repeat",
    "samples_per_second",
    "training_seconds",
    "test_accuracy",
    "final_train_loss",
    "peak_memory_bytes",
    "bytes_sent",
    "idle_share",
    "steps",
    "weights_sha256",
)


def summarise(runs: list[Run]) -> pd.DataFrame:
    """Return one row a run.

    `peak_memory_bytes` is that of the fullest rank, `bytes_sent` the sum and `idle_share` the mean
    over ranks; `test_accuracy` (0 to 1) and `final_train_loss` are the last ones.
    """
    rows = []
    for run in runs:
        trial, result = run.trial, run.result
        rows.append(
            {
                "trial": trial.name,
                "model": trial.model,
                "dataset": trial.dataset,
                "strategy": trial.strategy,
                "planner": trial.planner or "",
                "ranks": result.ranks,
                "seed": trial.seed,
                "repeat": trial.repeat,
                "samples_per_second": result.samples_per_second,
                "training_seconds": result.training_seconds,
                "test_accuracy": _last(result.test_accuracy),
                "final_train_loss": _last(result.train_loss),
                "peak_memory_bytes": max(result.peak_memory_bytes),
                "bytes_sent": sum(result.bytes_sent),
                "idle_share": sum(result.idle_share) / len(result.idle_share),
                "steps": len(result.step_seconds),
                "weights_sha256": result.weights_sha256,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    write_text_atomically(path, table.to_csv(index=False))


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    table.to_parquet(aside, index=False)
    aside.replace(path)


def _last(values: list[float]) -> float:
    return values[-1] if values else math.nan
