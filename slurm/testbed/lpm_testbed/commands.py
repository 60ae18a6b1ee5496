"""Runs programs of the system to their end."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from lpm_testbed.errors import TestbedError


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it wrote.

    Raises:
        TestbedError: if the command fails, with the error that it printed.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except OSError as error:
        raise TestbedError(f"`{' '.join(command)}` cannot be run ({error.strerror}).") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise TestbedError(f"`{' '.join(command)}` failed: {said}.")
    return done.stdout


def attempt(command: Sequence[str]) -> str | None:
    """Run a command and return what it wrote, None if it fails."""
    try:
        return run(command)
    except TestbedError:
        return None


def installed(program: str) -> bool:
    """Tell if a program is found, also in the directories that only root searches."""
    return shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is not None
