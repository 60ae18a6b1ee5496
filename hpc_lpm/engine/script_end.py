"""The end of a script of the user's own: whatever ends it on one rank ends it on all.

Python lets a process that fails end by itself. The other ranks would wait for it: for ever in MPI's
own functions, for the whole time limit in ours. Nor would each of them know that another one has
already reported the same fault.
"""

import atexit
import io
import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from hpc_lpm.engine.quiet_end import (
    abort_ranks,
    abort_ranks_after,
    complain,
    end_ranks,
    others_stopped_too,
    speak,
)
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.ranks import rank_from_environment, ranks_from_environment

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_BY_INTERRUPT = 1, 2, 130

_FINALISED_WITHIN_SECONDS = 5.0

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


@dataclass
class Standing:
    """Whether other ranks rely on this one: `step` is that of the newest batch in flight, or None.

    It outlives its engine, which a script that ends by `sys.exit` in a function takes along.
    """

    step: int | None = None


def guard_script() -> Standing:
    """See to it that all ranks end together, however this script ends.

    An exception that the script does not catch is reported once, by the first rank that meets it:
    `InputError` and `TrainingError` as one sentence, with a traceback only where the logger
    `hpc_lpm` has the level DEBUG, others by the hook that was there before. Then all ranks end,
    with exit code 2 for `InputError`, 130 for `KeyboardInterrupt` and 1 for others. A rank whose
    script ends while batches are in flight, as by `sys.exit`, ends the others with one sentence,
    unless they all end there. With one rank, only our own two errors are treated in this way.

    A hook that the script installs later takes the place of this one. Every rank calls this for
    each of its engines, before it joins the job: that may fail too.

    Returns:
        what the engine keeps up to date.
    """
    if not _GUARDS:
        guard = _Guard(sys.excepthook)
        _GUARDS.append(guard)
        sys.excepthook = guard.end_by_exception
        atexit.register(guard.end_early)
    standing = Standing()
    _GUARDS[0].standings.append(standing)
    return standing


class _Guard:
    def __init__(self, hook: Hook) -> None:
        self._previous_hook = hook
        self.standings: list[Standing] = []

    def end_by_exception(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if isinstance(sys.stderr, io.StringIO) and sys.__stderr__ is not None:
            # torch.distributed calls this hook from one of its own, and writes what it has caught
            # once the hook returns, which this one does not.
            sys.stderr = sys.__stderr__
        ours = isinstance(error, InputError | TrainingError)
        show = partial(self._previous_hook, kind, error, trace)
        if ranks_from_environment() == 1 and not ours:
            show()
            return
        if ours and logging.getLogger("hpc_lpm").isEnabledFor(logging.DEBUG):
            show()
        # Another Ctrl-C must not end this rank before the others know.
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if isinstance(error, InputError):
            self._end_by_bad_input(error)
        elif isinstance(error, TrainingError):
            self._end(EXIT_FAILED, partial(speak, str(error)))
        else:
            interrupted = isinstance(error, KeyboardInterrupt)
            exit_code = EXIT_BY_INTERRUPT if interrupted else EXIT_FAILED
            self._end(exit_code, partial(self._report, error, show))

    def end_early(self) -> None:
        """End all ranks if this one leaves while others may rely on it; run at exit."""
        step = self._step_in_flight()
        if ranks_from_environment() == 1 or step is None or others_stopped_too():
            return
        speak(
            f"{_place()}: the script has ended after step {step}, "
            "while other ranks still train: call engine.drain() on every rank after the same "
            "batch, or let all ranks end there."
        )
        abort_ranks(EXIT_FAILED)
        _exit_now(EXIT_FAILED)

    def _step_in_flight(self) -> int | None:
        return next((each.step for each in self.standings if each.step is not None), None)

    def _report(self, error: BaseException, show: Callable[[], object]) -> None:
        speak(f"{_place()} ends all ranks by {type(error).__name__}:")
        show()
        _flush()

    def _end_by_bad_input(self, error: InputError) -> None:
        if ranks_from_environment() == 1:
            speak(error.sentence, error.picture)
            raise SystemExit(EXIT_BAD_INPUT)
        complain(error.sentence, error.picture)
        if self._step_in_flight() is not None:
            abort_ranks(EXIT_BAD_INPUT)
        # MPI may be waiting for messages that no rank will send.
        late = threading.Timer(_FINALISED_WITHIN_SECONDS, _exit_now, [EXIT_BAD_INPUT])
        late.daemon = True
        late.start()
        end_ranks(EXIT_BAD_INPUT)
        _exit_now(EXIT_BAD_INPUT)

    def _end(self, exit_code: int, report: Callable[[], None]) -> None:
        if ranks_from_environment() == 1:
            report()
            raise SystemExit(exit_code)
        _flush()  # what MPI aborts it does not flush
        abort_ranks_after(report, exit_code)
        _exit_now(exit_code)


_GUARDS: list[_Guard] = []


def _place() -> str:
    return f"rank {rank_from_environment()} on {platform.node()}"


def _exit_now(exit_code: int) -> None:
    """End this process at once: what runs at exit could wait for ranks that are gone."""
    _flush()
    os._exit(exit_code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
