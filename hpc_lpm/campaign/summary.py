"""The summary of a campaign: one row per run, from which everything else is computed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hpc_lpm.campaign.metrics import RUN_COLUMNS, Metric
from hpc_lpm.campaign.reaching import Reached
from hpc_lpm.campaign.runs import Run
from hpc_lpm.files import write_text_atomically, written_aside


def summarise(
    runs: list[Run], metrics: Sequence[Metric], reached: Mapping[str, Reached] | None = None
) -> pd.DataFrame:
    """Return one row per run: what was run, then every metric.

    Args:
        runs: the finished trials.
        metrics: the columns; a metric of devices is missing where one process played them all.
        reached: how runs have reached the campaign's target, by the name of their trial. Steps and
            seconds are infinite where a run has not.

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
            "length": trial.length or 0,
            "calls": run.calls,
        }
        at = (reached or {}).get(trial.name)
        row["target"] = at.sentence if at else ""
        for metric in metrics:
            if metric.of_target:
                row[metric.name] = getattr(at, metric.name, math.nan)
            elif metric.of_devices and trial.played:
                row[metric.name] = math.nan
            else:
                row[metric.name] = metric.value(result, f"trial {trial.name}")
        row |= {"steps": len(result.step_seconds), "weights_sha256": result.weights_sha256}
        rows.append(row)
    described, ending = RUN_COLUMNS[:-2], RUN_COLUMNS[-2:]
    columns = [*described, *(metric.name for metric in metrics), *ending]
    return pd.DataFrame(rows, columns=columns)


def without_infinities(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as files have it: empty where a run did not reach its target.

    The column `target` says so there.
    """
    return table.replace([math.inf], math.nan)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    write_text_atomically(path, table.to_csv(index=False))


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, whole or not at all."""
    with written_aside(path) as aside:
        table.to_parquet(aside, index=False)
