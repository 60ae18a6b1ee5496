"""Reports a fault once and ends all ranks of a job, quietly where possible; never hangs."""

import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hpc_lpm.errors import EXIT_INTERRUPTED, in_one_line
from hpc_lpm.ranks import rank_from_environment, started_by_launcher
from hpc_lpm.stop_signals import STOP_SIGNALS, nothing_to_save

_PATIENCE_SECONDS = 5.0
_TURN_SECONDS = 0.5
_TERMINATED_WITHIN_SECONDS = 0.5
_KILLED_WITHIN_SECONDS = 3.0


def others_stopped_too() -> bool:
    """Tell if every other rank of the job has stopped as well (collective among those that have).

    If so, they have all found the same fault in the same input, and one of them may report it for
    all. A rank that waits in vain is alone with its fault.
    """
    mpi, store = _started_mpi(), _joined_store()
    if store is not None:
        return bool(store.all_stop_within(_PATIENCE_SECONDS))
    if mpi is None:
        return _first_or_ended_by_launcher()
    request = mpi.COMM_WORLD.Ibarrier()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def complain(sentence: str, picture: str = "") -> None:
    """Report bad input, which all ranks may have found: then the first one speaks for all.

    A rank that is alone with its fault says where that is: a file may be missing on one node only.
    """
    rank = rank_from_environment()
    if not others_stopped_too():
        speak(f"rank {rank} on {platform.node()}: {sentence}", picture)
    elif rank == 0:
        speak(sentence, picture)


def speak(sentence: str, picture: str = "") -> None:
    """Write a sentence to stderr as ours, in one line, whatever names and values it quotes.

    Below it comes a picture of several lines, if there is one.
    """
    # One write: where Python does not buffer, `print` writes the end of the line by itself, and the
    # launcher's own notice may come between the two.
    lines = [in_one_line(sentence), *picture.splitlines()]
    sys.stderr.write("hpc-lpm: " + "".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def end_ranks(exit_code: int) -> None:
    """Finalise MPI before exiting, so that mpi4py does not abort the job over the exit code.

    If another rank is still working, the job is aborted: that rank could wait for this one for
    ever.
    """
    mpi, store = _started_mpi(), _joined_store()
    if exit_code == 0:
        return
    if store is not None:
        store.tell_failure()
    if mpi is None:
        return
    if others_stopped_too():
        mpi.Finalize()
    else:
        mpi.COMM_WORLD.Abort(exit_code)


def abort_ranks_after(report: Callable[[], None], exit_code: int) -> None:
    """Report a fault with `report`, then end all ranks, which may be waiting for this one.

    If several ranks fail at about the same time, the first one to report ends the others before it
    is their turn.
    """
    # This rank's fault may be a consequence of another's, after which the launcher ends all ranks:
    # with SIGTERM, which must take effect from here on, and later with SIGKILL.
    terminated = STOP_SIGNALS.received is not None
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_KILLED_WITHIN_SECONDS if terminated else _TERMINATED_WITHIN_SECONDS)
    time.sleep(min(_TURN_SECONDS * rank_from_environment(), _PATIENCE_SECONDS))
    report()
    abort_ranks(exit_code)


def abort_ranks(exit_code: int) -> None:
    """End all ranks at once; return where that takes this process's own end."""
    mpi, store = _started_mpi(), _joined_store()
    if store is not None:
        store.tell_failure()
    if mpi is not None and mpi.COMM_WORLD.size > 1:
        mpi.COMM_WORLD.Abort(exit_code)


def end_before_training(signal_name: str) -> None:
    """End this process, which a signal has stopped before training began, by one sentence.

    It is called in a thread: whatever the process waits for may never come. The first rank speaks
    for all, whose end makes the launcher end the others; a rank that was interrupted alone says so.
    """
    rank, where = rank_from_environment(), ""
    if started_by_launcher():
        # A launcher uses SIGTERM if another rank has failed, which has said why, and kills soon.
        wait = _KILLED_WITHIN_SECONDS if signal_name == "SIGTERM" else 0.0
        # MPI_Init of the first rank must not see a later one fail, see below.
        started = rank == 0 or _started_mpi() is not None
        time.sleep(wait + (_TURN_SECONDS * rank if started else _PATIENCE_SECONDS))
        where = f"rank {rank} on {platform.node()}: " if rank else ""
    if STOP_SIGNALS.training:
        return
    sentence = f"hpc-lpm: {where}{nothing_to_save(signal_name)}\n"
    with suppress(OSError, ValueError):  # nobody may be there to read it
        os.write(sys.stderr.fileno(), sentence.encode())
    os._exit(EXIT_INTERRUPTED)


def _first_or_ended_by_launcher() -> bool:
    """Tell if this is the first rank, or never return if the first rank has failed as well.

    It stands in for `others_stopped_too` while MPI has not started. A launcher ends all ranks as
    soon as one has failed, so a rank that survives the wait is alone with its fault. The wait has
    another use: Open MPI 5.0.11's mpirun can hang for good if a later rank fails while the first is
    still connecting in MPI_Init.
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


def _joined_store() -> Any:
    """Return the module of ranks without MPI if this process is one of several, else None."""
    torch_job = sys.modules.get("hpc_lpm.engine.torch_job")
    return torch_job if torch_job is not None and torch_job.has_joined() else None
