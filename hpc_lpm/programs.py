"""Run other programs with a time limit, and end them together with all that they started."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ANSWER_SECONDS = 15.0
"""How long to wait for a program that should answer at once."""

_GRACE_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    """What a program wrote and how it ended; `exit_code` is None if it had to be stopped."""

    exit_code: int | None
    output: str
    errors: str

    @property
    def done(self) -> bool:
        """Tell if the program ended with exit code 0."""
        return self.exit_code == 0

    def complaint(self) -> str:
        """Return in one line why the program failed."""
        if self.exit_code is None:
            return "it did not answer in time"
        # Open MPI puts lines of dashes around its messages.
        said = (self.errors + self.output).splitlines()
        lines = [line for line in said if any(map(str.isalnum, line))]
        return " ".join(lines[0].split()) if lines else f"it ended with exit code {self.exit_code}"


def installed(program: str) -> bool:
    """Tell if a program is on the search path."""
    return shutil.which(program) is not None


def ask(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = ANSWER_SECONDS,
) -> Answer:
    """Run `command` for at most `seconds`, return its answer and leave no process of it running."""
    try:
        child = subprocess.Popen(
            command,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return Answer(127, "", str(error))
    try:
        output, errors = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return Answer(None, *_stop(child))
    except BaseException:
        _stop(child)
        raise
    return Answer(child.returncode, output, errors)


def _stop(child: subprocess.Popen[str]) -> tuple[str, str]:
    """End a child with all its descendants and return what it wrote until then."""
    everyone = family(child.pid)  # before the launcher ends and orphans its ranks
    child.terminate()  # a launcher cleans up after itself if it still can
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=_GRACE_SECONDS)
    kill(everyone)
    with suppress(subprocess.TimeoutExpired):
        return child.communicate(timeout=_GRACE_SECONDS)
    return "", ""


def family(pid: int) -> list[psutil.Process]:
    """Return a process with all its descendants, or none if it has ended.

    They are found by descent, because ranks leave their launcher's process group.
    """
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes of this machine whose environment has a variable with this value.

    What a program has started is so found even if it has lost its parents.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(variable) == value:
                found.append(process)
    return found


def beginning_of(pid: int) -> str | None:
    """Return what tells a process from all others that have its number, None if there is none.

    It is the boot of the machine and the clock ticks since, which no clock that is set changes.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The name of the program, in parentheses, may hold anything.
    after_name = fields.rpartition(")")[2].split()
    return None if after_name[0] == "Z" else f"{boot} {after_name[19]}"


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill the processes that are still alive."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
