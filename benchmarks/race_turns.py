"""What the ranks of a race have in common: contestants train in turn, and rank 0 keeps the rows."""

import gc
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpc_lpm.engine.job import Job, start_job

Outcome = dict[str, Any] | None
"""What a training has measured, on rank 0; None on the others."""


def take_turns(
    train: Callable[[Job, dict[str, Any], Path], Outcome], *, alternates: bool = False
) -> None:
    """Run the race of the first argument of this program and write its rows to the second.

    Args:
        train: lets a contestant train, given the ranks and a folder for what it leaves.
        alternates: whether the order changes from turn to turn, so that a machine that slows down
            favours no contestant.
    """
    race = json.loads(Path(sys.argv[1]).read_text())
    job = start_job(parallel=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(race["repeats"]):
            for contestant in race["contestants"][:: -1 if alternates and repeat % 2 else 1]:
                outcome = train(job, contestant, Path(folder))
                gc.collect()
                if outcome is not None:
                    rows.append({"label": contestant["label"], "repeat": repeat, **outcome})
                    Path(sys.argv[2]).write_text(json.dumps(rows))
