"""The doctor on real ranks: those it starts, those of a job, and ranks that are badly bound."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi

PINNED = """
import os, runpy, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.argv = ["hpc-lpm", "doctor", "--json"]
runpy.run_module("hpc_lpm", run_name="__main__")
"""


def verdicts(output: str) -> dict[str, str]:
    document = json.loads(output)
    found = {check["name"]: check["verdict"] for check in document["checks"]}
    assert document["failed"] == list(found.values()).count("failed")
    return found


def test_ranks_are_started_from_any_folder_without_terminal_or_leave_for_root(
    tmp_path: Path,
) -> None:
    allowed = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
    done = subprocess.run(
        [sys.executable, "-m", "hpc_lpm", "doctor", "--json"],
        env={name: value for name, value in os.environ.items() if name not in allowed},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = verdicts(done.stdout)
    assert found["ranks"] == found["storage"] == "ok"
    assert len(found) == 15
    assert not list(tmp_path.iterdir())


def test_in_a_job_its_own_ranks_are_looked_at_and_one_of_them_speaks() -> None:
    done = mpirun(3, "-m", "hpc_lpm", "doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (ranks, *_) = json.loads(done.stdout)["checks"]
    assert ranks["verdict"] == "ok"
    assert ranks["found"].startswith("3 ranks in 3 processes on 1 host")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores to be pinned on one")
def test_two_ranks_pinned_on_one_core_end_all_ranks_with_code_1(tmp_path: Path) -> None:
    program = tmp_path / "pinned.py"
    program.write_text(PINNED)
    done = mpirun(2, str(program))
    assert done.returncode == 1, done.stdout + done.stderr
    found = verdicts(done.stdout)
    assert found["binding"] == "failed"
    assert found["ranks"] == "ok"
    assert "MPI_ABORT" not in done.stdout + done.stderr
