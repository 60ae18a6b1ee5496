"""Other programs, asked with a time limit."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

ANSWER_SECONDS = 15.0
"""How long a program that should answer at once is waited for."""

_GRACE_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    """What a program wrote and how it ended; `exit_code` is None if it had to be stopped."""

    exit_code: int | None
    output: str
    errors: str

    @property
    def done(self) -> bool:
        """Tell if it ended well."""
        return self.exit_code == 0

    def complaint(self) -> str:
        """Return why it is not done, in one line."""
        if self.exit_code is None:
            return "it did not answer in time"
        lines = [line for line in (self.errors + self.output).splitlines() if line.strip()]
        return " ".join(lines[0].split()) if lines else f"it ended with exit code {self.exit_code}"


def installed(program: str) -> bool:
    """Tell if a program is found on the search path."""
    return shutil.which(program) is not None


def ask(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = ANSWER_SECONDS,
) -> Answer:
    """Run `command` for at most `seconds` and return its answer; nothing of it is left running."""
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


def outside_job(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment without what tells a process that it is a rank of a job.

    A child that starts MPI would else join, and disturb, the job of its parent.
    """
    marks = ("OMPI_COMM_", "OMPI_MCA_", "PMIX_", "PRTE_", "PMI_")
    return {name: value for name, value in environment.items() if not name.startswith(marks)}


def _stop(child: subprocess.Popen[str]) -> tuple[str, str]:
    """End a child with all its descendants and return what it wrote until then."""
    # Ranks leave their launcher's process group, so they are found by descent, while it lives.
    family = [child.pid]
    with suppress(psutil.NoSuchProcess):
        family += [one.pid for one in psutil.Process(child.pid).children(recursive=True)]
    child.terminate()  # a launcher cleans up after itself if it still can
    with suppress(subprocess.TimeoutExpired):
        return child.communicate(timeout=_GRACE_SECONDS)
    for pid in family:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    with suppress(subprocess.TimeoutExpired):
        return child.communicate(timeout=_GRACE_SECONDS)
    return "", ""
