"""Ending all ranks of a job without MPI's abort notice, and never with a hang."""

import sys
import time
from typing import Any

_PATIENCE_SECONDS = 5.0


def others_stopped_too() -> bool:
    """Tell if every other rank of the job has stopped as well (collective among those that did).

    Where they all found the same fault in the same input, one of them may speak for all. A rank
    that waits in vain is alone with its fault.
    """
    mpi = _started_mpi()
    if mpi is None:
        return True
    request = mpi.COMM_WORLD.Ibarrier()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def end_ranks(exit_code: int) -> None:
    """Leave MPI in order, so that mpi4py does not abort the job because of the exit code.

    If another rank still works, the job is aborted: it could wait for this one for ever.
    """
    mpi = _started_mpi()
    if mpi is None or exit_code == 0:
        return
    if others_stopped_too():
        mpi.Finalize()
    else:
        mpi.COMM_WORLD.Abort(exit_code)


def _started_mpi() -> Any:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return None
    return mpi
