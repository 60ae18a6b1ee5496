"""What starting a rank imports of DeepSpeed and of the libraries beside it."""

import subprocess
import sys

MARKED = """
import sys
import types

sys.modules["mlflow"] = marked = types.ModuleType("mlflow")
import hpc_lpm.engine.pipeline.engine
from deepspeed.autotuning import autotuner

assert not autotuner.has_mlflow
assert sys.modules["mlflow"] is marked
"""


def run(program: str) -> None:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_rank_does_not_import_what_the_autotuner_alone_would_use() -> None:
    run("import sys, hpc_lpm.engine.pipeline.engine; assert 'mlflow' not in sys.modules")


def test_a_tracker_that_was_imported_before_stays() -> None:
    run(MARKED)
