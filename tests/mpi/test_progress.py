"""The progress thread moves messages while both sides compute, and costs next to nothing."""

import json
from pathlib import Path

import pytest

from tests.mpi.ranks import mpirun

pytestmark = pytest.mark.mpi

TCP = ("--mca", "pml", "ob1", "--mca", "btl", "self,tcp")
BY_CHANCE = 1 / 256
"""Of the awaited bytes so many are those that the memory held before."""


def found(progress: str, folder: Path) -> dict[str, float]:
    program = str(Path(__file__).with_name("progress_program.py"))
    done = mpirun(2, program, progress, str(folder / "found"), options=TCP)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    outcome: dict[str, float] = json.loads(line)
    assert outcome["whole"]
    return outcome


def test_a_large_message_arrives_over_tcp_while_nobody_else_calls_mpi(tmp_path: Path) -> None:
    outcome = found("with", tmp_path)
    assert outcome["arrived"] == 1.0
    assert outcome["idle_share"] < 0.01, "asleep when nothing is outstanding"
    assert outcome["waiting_share"] < 0.1, "the core is the computing thread's"


def test_without_the_thread_it_stalls(tmp_path: Path) -> None:
    assert found("without", tmp_path)["arrived"] < BY_CHANCE + 0.5


@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise ValueError('failed')"])
def test_the_thread_keeps_no_failing_process_alive(ending: str, tmp_path: Path) -> None:
    program = tmp_path / "failing.py"
    program.write_text(
        "import sys\n"
        "from mpi4py import MPI\n"
        "from hpc_lpm.engine.pipeline.transport.progress_thread import ProgressThread\n"
        "thread = ProgressThread(MPI.COMM_WORLD)\n"
        "thread.__enter__()\n"
        "thread.posted(1)\n"
        f"if MPI.COMM_WORLD.rank == 1:\n    {ending}\n"
        "MPI.COMM_WORLD.recv(source=1)\n",
        encoding="utf-8",
    )
    done = mpirun(2, str(program), timeout_seconds=180)
    assert done.returncode != 0
