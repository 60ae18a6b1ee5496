"""The testbed as the tests use it: a cluster of their own, beside any that a person has up."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "slurm" / "testbed" / "cluster"
NAME = "tests"


def cluster(*arguments: str, name: str = NAME) -> subprocess.CompletedProcess[str]:
    """Run a command of the testbed."""
    command, *options = arguments
    return subprocess.run(
        [str(CLUSTER), command, "--name", name, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def variables(name: str = NAME) -> dict[str, str]:
    """Return this process's environment with the variables of a cluster, as a shell gets them."""
    script = f'eval "$("{CLUSTER}" env --name {name})" && env -0'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)


class Shell:
    """A shell whose commands talk to the cluster of the tests."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self.folder = folder

    def run(self, *command: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def output(self, *command: str, seconds: float = 120.0) -> str:
        """Run a command that has to end well and return what it wrote."""
        done = self.run(*command, seconds=seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command; its output goes to a file in the folder."""
        log = self.folder / f"{Path(command[0]).name}-{os.urandom(2).hex()}.out"
        with log.open("w") as stream:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
            )
