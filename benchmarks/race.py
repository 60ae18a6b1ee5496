"""Races contestants in turn on the same ranks, and takes ratios between neighbours in time."""

import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hpc_lpm.campaign.statistics import Estimate, estimate
from hpc_lpm.cluster.launchers import rank_command, rank_environment

_PROGRAM = Path(__file__).with_name("race_ranks.py")


@dataclass(frozen=True)
class Contestant:
    """A contestant: `trained` with settings of `hpc-lpm train`, or `predicted` for their plan."""

    label: str
    settings: dict[str, Any]
    kind: Literal["trained", "predicted"] = "trained"


def race(
    contestants: list[Contestant], ranks: int, repeats: int, program: Path = _PROGRAM
) -> pd.DataFrame:
    """Let all contestants train `repeats` times in turn; return one row per training, in order.

    Args:
        contestants: in the order of a turn.
        ranks: that all of them share.
        repeats: the number of turns.
        program: what the ranks run.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec, out = Path(folder) / "race.json", Path(folder) / "out.json"
        spec.write_text(
            json.dumps({"repeats": repeats, "contestants": [asdict(c) for c in contestants]})
        )
        command = rank_command([], ranks, "mpirun")
        command[command.index("hpc_lpm") - 1 :] = [str(program), str(spec), str(out)]
        subprocess.run(
            command,
            env=rank_environment(os.environ, threads=1),
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return pd.DataFrame(json.loads(out.read_text()))


def ratio(rows: pd.DataFrame, first: str, second: str, column: str) -> Estimate:
    """Return the median of first / second over the repeats, with its 95 % interval."""
    by_label = rows.pivot(index="repeat", columns="label", values=column)
    return estimate([float(value) for value in by_label[first] / by_label[second]])


def median(rows: pd.DataFrame, label: str, column: str) -> Estimate:
    """Return the median of one contestant's column over the repeats."""
    return estimate([float(value) for value in rows[rows["label"] == label][column]])


def shown(value: Estimate, digits: int = 3) -> str:
    """Return the text of a median and its interval, which is the range below 6 values."""
    low, high = value.bounds()
    return f"{value.median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
