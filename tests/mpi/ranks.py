"""Starting real ranks for tests."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MPIRUN = Path(sys.executable).parent / "mpirun"
TIMEOUT_SECONDS = 420


def mpirun(
    ranks: int,
    *arguments: str,
    timeout_seconds: float = TIMEOUT_SECONDS,
    options: Sequence[str] = (),
    program: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m mpi4py ARGUMENTS` on so many ranks, more than there are cores if need be.

    `options` are further options of mpirun; `program` is what starts Python on each rank.
    """
    return finished(start(ranks, *arguments, options=options, program=program), timeout_seconds)


def finished(
    process: subprocess.Popen[str], timeout_seconds: float
) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process; it is killed if that does not come in time."""
    try:
        stdout, stderr = process.communicate(timeout=timeout_seconds)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def start(
    ranks: int, *arguments: str, options: Sequence[str] = (), program: str | None = None
) -> subprocess.Popen[str]:
    """Start the same and return."""
    environment = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [
        *(str(MPIRUN), "--bind-to", "none", "--oversubscribe"),
        *("--mca", "mpi_yield_when_idle", "1", "-n", str(ranks), *options),
        *(() if program is None else (program,)),
        *(sys.executable, "-m", "mpi4py", *arguments),
    ]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
