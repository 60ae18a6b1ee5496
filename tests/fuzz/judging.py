"""Runs commands in this process, and judges how they take what they are given."""

import io
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType

import typer

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import COMMANDS, register
from hpc_lpm.cli.errors import EXIT_BAD_INPUT, run_guarded

HANGS_AFTER_SECONDS = 120.0
HUNG = -1
MOST_BYTES = 2**30
LONGEST_SENTENCE = 5000


class HangError(BaseException):
    """An input has taken so long that a user would call it a hang."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, what it said on stderr, and how long it has computed."""

    code: int
    said: str
    seconds: float


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Tally:
    """Counts inputs and how they were taken."""

    accepted: int = 0
    refused: int = 0
    slowest_seconds: float = 0.0
    slowest: str = ""
    memory_before: int = field(default_factory=peak_bytes)

    @property
    def tried(self) -> int:
        return self.accepted + self.refused

    def count(self, what: str, outcome: Outcome) -> None:
        self.refused += outcome.code == EXIT_BAD_INPUT
        self.accepted += outcome.code != EXIT_BAD_INPUT
        if outcome.seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest = outcome.seconds, what

    @property
    def grown_bytes(self) -> int:
        return peak_bytes() - self.memory_before

    def sentence(self) -> str:
        return (
            f"{self.tried:,} spoilt inputs, {self.refused:,} refused, {self.accepted:,} accepted; "
            f"the slowest took {self.slowest_seconds:.1f} s ({self.slowest}), memory grew by "
            f"{self.grown_bytes / 2**20:.0f} MiB"
        )


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process have `MOST_BYTES` more than it has."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    size = int(pages) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _ended_in_time() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@cache
def alone(command: str) -> typer.Typer:
    """Return an application with one command, which is made ready faster than one with all."""
    if not app.registered_commands or command not in {c.name for c in app.registered_commands}:
        register([command])
    module = COMMANDS[command]
    own = typer.Typer(name="hpc-lpm", pretty_exceptions_enable=False, add_completion=False)
    own.callback()(lambda: None)
    own.registered_commands = [
        each for each in app.registered_commands if each.callback.__module__ == module
    ][-1:]
    own.registered_groups = [each for each in app.registered_groups if command == "campaign"]
    return own


def run(*arguments: str) -> Outcome:
    """Run a command as `hpc-lpm` does."""
    return _run(alone(arguments[0]), list(arguments))


_READER = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
_READER.callback()(lambda: None)
_ACTIONS: list[Callable[[], object]] = []


@_READER.command()
def read() -> None:
    _ACTIONS[-1]()


def run_reader(action: Callable[[], object]) -> Outcome:
    """Read a file as a command would that does nothing else."""
    _ACTIONS[:] = [action]
    return _run(_READER, ["read"])


def _run(own: typer.Typer, arguments: list[str]) -> Outcome:
    # As `hpc_lpm.cli.lossy_output` has it.
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2)]
    start, code = time.process_time(), HUNG
    try:
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]), _ended_in_time():
            code = run_guarded(own, arguments)
    except HangError:
        streams[1].write(f"it had not ended after {HANGS_AFTER_SECONDS} seconds")
    seconds = time.process_time() - start
    streams[1].flush()
    return Outcome(code, streams[1].buffer.getvalue().decode(), seconds)


def complaint(outcome: Outcome, codes: frozenset[int]) -> str | None:
    """Say what is wrong with how an input was taken, None if nothing is."""
    said = outcome.said
    lines = said.split("\n")[:-1]
    notices = [line for line in lines if line.startswith("hpc-lpm: ")] or [""]
    # What is passed over, such as a --data-dir, may have been said before.
    sentence, picture = notices[-1], [line for line in lines if not line.startswith("hpc-lpm: ")]
    refused = outcome.code == EXIT_BAD_INPUT
    faults = {
        "a traceback": "Traceback" in said,
        f"exit code {outcome.code}": outcome.code not in codes,
        "not one sentence": refused and (not sentence or _text(picture) or len(notices) > 3),
        "a sentence that changes a terminal": not all(map(str.isprintable, notices)),
        "no whole sentence": refused and not picture and not sentence.endswith((".", ")", ":")),
        "an endless sentence": len(sentence) > LONGEST_SENTENCE,
    }
    found = next((fault for fault, holds in faults.items() if holds), None)
    return f"{found}: {said[:2000]!r}" if found else None


def _text(picture: list[str]) -> bool:
    """Tell if lines are none of the drawing of a schedule, which stands below what is wrong."""
    return not all(line.startswith(("stage ", "device ")) for line in picture)
