"""What this MPI library can do: read device memory, be called by several threads."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from mpi4py import MPI

_BUILT = "mpi_built_with_cuda_support:value:true"
_ASK_SECONDS = 20.0


@cache
def mpi_reads_device_memory() -> bool:
    """Return whether MPI is known to be CUDA-aware.

    MPICH and Cray MPICH accept device memory if the job's environment asks for it, Open MPI if it
    was built to do so, which its program ompi_info tells.
    """
    if os.environ.get("MPICH_GPU_SUPPORT_ENABLED") == "1":
        return True
    if "Open MPI" not in MPI.Get_library_version():
        return False
    beside_python = Path(sys.executable).parent / "ompi_info"
    program = str(beside_python) if beside_python.exists() else shutil.which("ompi_info")
    return program is not None and says_cuda(program)


def says_cuda(program: str) -> bool:
    """Return whether this `ompi_info` says that its Open MPI was built with CUDA."""
    try:
        told = subprocess.run(
            [program, "--parsable", "--all"],
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return _BUILT in told.stdout


def threads_may_call_mpi() -> bool:
    """Return whether MPI was started so that several threads may call it at once."""
    return bool(MPI.Query_thread() == MPI.THREAD_MULTIPLE)
