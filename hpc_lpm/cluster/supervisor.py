"""Runs a command as a child process: logs its output, passes on signals and the exit code."""

import signal
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from hpc_lpm.cluster.roll_call import roll_call
from hpc_lpm.launcher_watch import supervised
from hpc_lpm.programs import family, kill, processes_with
from hpc_lpm.stop_signals import inherited_as_ignored

FORWARDED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
GRACE_SECONDS = 60.0
"""How long ranks may take to save a checkpoint after a signal that asks them to end."""
KEPT_LINES = 15

_LAUNCH = "HPC_LPM_LAUNCH"
"""The variable by which the processes of a command are known when it has ended."""
_GONE_WITHIN_SECONDS = 20.0
"""How long processes that have been killed may take to end, as those that write to a slow disk."""
_KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class CommandOutcome:
    """How a command was started, when, and how it ended.

    `stopped_by` names the first signal that was passed on to the command. `left` are the processes
    of it on this machine that live on although they were killed.
    """

    command: tuple[str, ...]
    ranks: int
    started: datetime
    ended: datetime
    exit_code: int
    stopped_by: str | None
    left: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds from start to end, start-up included."""
        return (self.ended - self.started).total_seconds()


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    ranks: int,
    log: Path,
    *,
    say: Callable[[str], None],
    progress: Callable[[], str | None] | None = None,
    interval_seconds: float = 5.0,
    grace_seconds: float = GRACE_SECONDS,
    stop_signal: int | None = None,
    ranks_within_seconds: float | None = None,
    forwarding: "Forwarding | None" = None,
    heading: str | None = None,
) -> CommandOutcome:
    """Run `command` to its end and return how it ended.

    A signal to this process is passed on to the command. After any signal but SIGUSR2, the command
    is killed with all its children if it has not ended `grace_seconds` later, and likewise if ranks
    of it have not come to life within `ranks_within_seconds`. If it fails, what it has started on
    this machine ends with it: ranks outlive a launcher that was killed.

    Args:
        command: what to run.
        environment: all variables that the command gets.
        ranks: number of ranks that it starts, for the record.
        log: file that its output is written to as it comes.
        say: called with every line of the output; where `progress` is given, with progress lines
            instead, and with the last lines of the output only if the command fails.
        progress: returns the current progress line, or None if there is nothing to say.
        interval_seconds: time between two progress lines.
        grace_seconds: time that the command has to end after a signal.
        stop_signal: sent to the command in place of the signal that came.
        ranks_within_seconds: how long its ranks may take to start; without it nobody asks.
        forwarding: passes signals on, also those that came before; it replaces `grace_seconds` and
            `stop_signal`.
        heading: a line to begin with in the log, which then keeps what it has.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started, began = datetime.now(UTC), time.monotonic()
    tail: deque[str] = deque(maxlen=KEPT_LINES)
    asked = (
        nullcontext()
        if ranks_within_seconds is None
        else roll_call(log, ranks, ranks_within_seconds)
    )
    launch = {_LAUNCH: uuid.uuid4().hex}
    passing = nullcontext(forwarding) if forwarding else Forwarding(grace_seconds, stop_signal)
    with (
        asked as call,
        log.open("w" if heading is None else "a", encoding="utf-8", errors="replace") as stream,
        passing as signals,
    ):
        if heading is not None:
            stream.write(f"{heading}\n")
            stream.flush()
        child = subprocess.Popen(
            command,
            env=supervised({**(call.environment(environment) if call else environment), **launch}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Out of the terminal's group: Ctrl-C reaches the command once, through us.
            start_new_session=True,
        )
        assert child.stdout is not None
        echo = None if progress else say
        reader = threading.Thread(
            target=_copy, args=(child.stdout, stream, tail, echo), daemon=True
        )
        reader.start()
        with signals.to(child):
            spoken = launched = time.monotonic()
            while child.poll() is None:
                time.sleep(0.1)
                signals.kill_when_overdue()
                if call and (complaint := call.complaint(time.monotonic() - launched)):
                    say(f"{log}: {complaint}")
                    signals.kill()
                if progress and time.monotonic() - spoken >= interval_seconds:
                    spoken = time.monotonic()
                    _say_progress(progress, say)
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        left = _end_left(launch) if code else ()
        # A grandchild that holds the pipe open must not keep us waiting.
        reader.join(timeout=5)
    if progress and code:
        say(f"exit code {code}; the last lines of {log}:")
        for line in tail:
            say(f"  {line}")
    explanation = None if signals.killed else _explain_killed(code)
    if explanation:
        say(f"{log}: {explanation}")
    return CommandOutcome(
        command=tuple(command),
        ranks=ranks,
        started=started,
        # By the clock that nobody sets, whatever becomes of the other one meanwhile.
        ended=started + timedelta(seconds=time.monotonic() - began),
        exit_code=code,
        stopped_by=signals.received[0].name if signals.received else None,
        left=left,
    )


def _end_left(launch: Mapping[str, str]) -> tuple[int, ...]:
    """End the processes of a launch, and return those that live on although they were killed."""
    ((variable, value),) = launch.items()
    deadline = time.monotonic() + _GONE_WITHIN_SECONDS
    while left := processes_with(variable, value):
        if time.monotonic() > deadline:
            return tuple(process.pid for process in left)
        kill(left)
        psutil.wait_procs(left, timeout=0.2)
    return ()


def _explain_killed(exit_code: int) -> str | None:
    """Return a sentence if the exit code tells that signal 9 ended the command or a rank of it."""
    if exit_code != _KILLED:
        return None
    return (
        "a process was killed by signal 9, as the kernel and schedulers do when memory runs out: "
        "ask for more (resources.memory_megabytes), or train with more micro-batches, fewer "
        "samples or more stages."
    )


def _copy(
    source: IO[str], log: IO[str], tail: deque[str], echo: Callable[[str], None] | None
) -> None:
    for line in source:
        if log.closed:
            return
        with suppress(OSError):  # with a full disk, the command must not wait for us for ever
            log.write(line)
            log.flush()
        tail.append(line.rstrip("\n"))
        if echo:
            echo(line.rstrip("\n"))


def _say_progress(progress: Callable[[], str | None], say: Callable[[str], None]) -> None:
    line = progress()
    if line:
        say(line)


class Forwarding:
    """Passes the signals that come while the `with` block runs on to the child of the moment.

    Those that this process has inherited as ignored, as under `nohup`, stay so. One that comes
    while there is none is passed on to the next child.

    Args:
        grace_seconds: time that a child has to end after a signal.
        stop_signal: sent in place of the signal that came.
    """

    def __init__(
        self, grace_seconds: float = GRACE_SECONDS, stop_signal: int | None = None
    ) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._grace_seconds = grace_seconds
        self._stop_signal = stop_signal
        self._deadline: float | None = None
        self.killed = False
        self.received: list[signal.Signals] = []
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Forwarding":
        ignored = inherited_as_ignored()
        for number in FORWARDED_SIGNALS:
            if number in ignored:
                continue  # the child ignores it as well
            self._previous[number] = signal.signal(number, self._forward)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def to(self, child: subprocess.Popen[str]) -> Iterator[None]:
        """Pass signals on to a child, which does not outlive the `with` block."""
        self._child, self.killed = child, False
        try:
            if self.received:
                self._send(self.received[0])
            yield
        finally:
            if child.poll() is None:
                self.kill()
            self._child = None

    def _forward(self, number: int, _: FrameType | None) -> None:
        self.received.append(signal.Signals(number))
        self._send(number)
        if number != signal.SIGUSR2 and self._deadline is None:
            self._deadline = time.monotonic() + self._grace_seconds

    def _send(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(self._stop_signal or number)

    def kill_when_overdue(self) -> None:
        """End the child once its time after a signal is over."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.kill()

    def kill(self) -> None:
        """End the child with all that it has started."""
        self.killed = True
        if self._child is not None:
            kill(family(self._child.pid))
            self._child.wait()
