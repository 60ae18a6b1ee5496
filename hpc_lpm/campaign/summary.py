"""The summary of a campaign: one row per run, from which everything else is computed."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hpc_lpm.campaign.metrics import RUN_COLUMNS, Metric
from hpc_lpm.campaign.runs import Run
from hpc_lpm.files import write_text_atomically


def summarise(runs: list[Run], metrics: Sequence[Metric]) -> pd.DataFrame:
    """Return one row per run: what was run, then every metric.

    Raises:
        InputError: if one of the user's metrics cannot be computed from a run.
    """
    rows: list[dict[str, object]] = []
    for run in runs:
        trial, result = run.trial, run.result
        row: dict[str, object] = {
            "trial": trial.name,
            "model": trial.model,
            "dataset": trial.dataset,
            "strategy": trial.strategy,
            "contestant": trial.label,
            "planner": trial.planner or "",
            "ranks": result.ranks,
            "seed": trial.seed,
            "repeat": trial.repeat,
            "calls": run.calls,
        }
        row |= {metric.name: metric.value(result, f"trial {trial.name}") for metric in metrics}
        row |= {"steps": len(result.step_seconds), "weights_sha256": result.weights_sha256}
        rows.append(row)
    described, ending = RUN_COLUMNS[:-2], RUN_COLUMNS[-2:]
    columns = [*described, *(metric.name for metric in metrics), *ending]
    return pd.DataFrame(rows, columns=columns)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    write_text_atomically(path, table.to_csv(index=False))


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    table.to_parquet(aside, index=False)
    aside.replace(path)
