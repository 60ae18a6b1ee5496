"""Ending all ranks of a job without MPI's abort notice, and never with a hang."""

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from hpc_lpm.ranks import rank_from_environment
from hpc_lpm.stop_signals import STOP_SIGNALS

_PATIENCE_SECONDS = 5.0
_TURN_SECONDS = 0.2
_TERMINATED_WITHIN_SECONDS = 0.5
_KILLED_WITHIN_SECONDS = 3.0


def others_stopped_too() -> bool:
    """Tell if every other rank of the job has stopped as well (collective among those that did).

    Where they all found the same fault in the same input, one of them may speak for all. A rank
    that waits in vain is alone with its fault.
    """
    mpi = _started_mpi()
    if mpi is None:
        return _first_or_ended_by_launcher()
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


def abort_ranks_after(speak: Callable[[], None], exit_code: int) -> None:
    """Speak, then end all ranks at once: those that wait for this one cannot know of its fault.

    Of several ranks with a fault at about the same time the first one ends the others before it
    is their turn to speak.
    """
    # The launcher ends all ranks after the fault of one, of which this rank's may be a consequence:
    # first with SIGTERM, which is not to be outlived any longer, then with SIGKILL.
    terminated = STOP_SIGNALS.received is not None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_KILLED_WITHIN_SECONDS if terminated else _TERMINATED_WITHIN_SECONDS)
    time.sleep(min(_TURN_SECONDS * rank_from_environment(), _PATIENCE_SECONDS))
    speak()
    mpi = _started_mpi()
    if mpi is not None:
        mpi.COMM_WORLD.Abort(exit_code)


def _first_or_ended_by_launcher() -> bool:
    """Tell the same where MPI has not started: whoever outlives the first rank's fault is alone.

    A launcher ends all ranks as soon as one has failed, so that a rank whose fault the first one
    shares does not come back from waiting. The wait has another use: Open MPI 5.0.11's mpirun can
    hang for good if a later rank fails while the first is still connecting in MPI_Init.
    """
    if rank_from_environment() == 0:
        return True
    time.sleep(_PATIENCE_SECONDS)
    return False


def _started_mpi() -> Any:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return None
    return mpi
