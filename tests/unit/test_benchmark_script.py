"""The race of a script with the command: both train the same, in turns."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.script import COMMAND, SCRIPT, report, run


@pytest.mark.mpi
def test_a_script_and_the_command_take_turns_and_end_in_the_same_weights(tmp_path: Path) -> None:
    rows = run("mlp", tmp_path, repeats=2)
    assert list(rows["label"]) == [COMMAND, SCRIPT, SCRIPT, COMMAND]
    assert rows["weights_sha256"].nunique() == 1
    assert (rows["samples_per_second"] > 0).all()


def test_the_table_gives_the_ratio_of_each_pair(tmp_path: Path) -> None:
    rates = {COMMAND: [10.0, 20.0, 40.0], SCRIPT: [9.0, 20.0, 44.0]}
    rows = pd.DataFrame(
        {
            "label": label,
            "repeat": n,
            "samples_per_second": rate,
            "weights_sha256": "ab",
            "model": "m",
        }
        for label, values in rates.items()
        for n, rate in enumerate(values)
    )
    assert "| m | 20.0 (9.0-44.0) | 20.0 (10.0-40.0) | 1.000 (0.900-1.100) | 3 | ab |" in report(
        rows
    )
