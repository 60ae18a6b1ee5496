"""The testbed as the tests use it: a cluster of their own, beside any that a person has up."""

import os
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "slurm" / "testbed" / "cluster"
GUARD = Path(__file__).with_name("guard.py")
_NETWORKS = 250
_FIRST_BYTES = ("10", "213")
_given: set[int] = set()


def network_of(name: str) -> int:
    """Return the number from which the testbed makes the addresses of a cluster of that name."""
    return zlib.crc32(name.encode()) % _NETWORKS


def unused_name(prefix: str) -> str:
    """Return a name that no other run of the tests uses, and of whose network nobody has a part."""
    addresses = (
        address.address.split(".")
        for link in psutil.net_if_addrs().values()
        for address in link
        if address.family == socket.AF_INET
    )
    taken = {int(third) for first, second, third, _ in addresses if (first, second) == _FIRST_BYTES}
    names = (f"{prefix}-{number}" for number in count(os.getpid()))
    name = next(name for name in names if network_of(name) not in taken | _given)
    _given.add(network_of(name))
    return name


@contextmanager
def taken_down_at_last(name: str) -> Iterator[None]:
    """Take a cluster down at the end, also if this process is killed before it comes there."""
    command = [sys.executable, str(GUARD), str(CLUSTER), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


def cluster(*arguments: str, name: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the testbed."""
    command, *options = arguments
    return subprocess.run(
        [str(CLUSTER), command, "--name", name, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def variables(name: str) -> dict[str, str]:
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

    def end_jobs(self) -> None:
        """Leave the cluster to the next test without a job, whatever became of this one."""
        deadline = time.monotonic() + 180
        while self.output("squeue", "--noheader"):
            assert time.monotonic() < deadline, "jobs do not end"
            self.run("scancel", "--user=root")
            time.sleep(0.2)
