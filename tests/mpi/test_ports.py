"""What ranks of one node listen on while they train, and what strangers can do there: nothing.

They connect to every port as soon as it is there, and again and again until the end: some say
nothing and leave, some say nothing and stay, some say half of something, some say anything. They
leave alone what mpirun itself listens on, which is not ours (docs/explanation/security.md).
"""

import ipaddress
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.mpi.ranks import finished, start

pytestmark = pytest.mark.mpi

STEPS = 600
TRAINING = (
    *("-m", "hpc_lpm", "train", "--model", "mlp,layers=6,width=16", "--strategy", "fbp"),
    *("--dataset", "synthetic,samples=6400,features=64", "--steps", str(STEPS)),
    *("--batch-size", "64", "--micro-batches", "4", "--receive-timeout", "60s"),
)


def train(out: Path, *options: str) -> tuple[str, ...]:
    return (*TRAINING, "--out", str(out), *options)


@dataclass(frozen=True)
class Port:
    """A port on which a process listens, with the address that it is bound to."""

    number: int
    address: str


def ports_of_ranks(launcher: int) -> set[Port]:
    """Return the ports on which the ranks of a launcher, and what they have started, listen."""
    inodes = set()
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(launcher).children(recursive=True):
            with suppress(psutil.Error, OSError):
                if "OMPI_COMM_WORLD_RANK" in process.environ():
                    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                        with suppress(OSError):
                            inodes.add(str(descriptor.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[index] for index in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in inodes:
                address, _, number = local.partition(":")
                found.add(Port(int(number, 16), _address(address)))
    return found


def _address(digits: str) -> str:
    words = [bytes.fromhex(digits[i : i + 8])[::-1] for i in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


@dataclass
class Strangers:
    """Connect to all ports of a launcher and its ranks until the block ends."""

    launcher: "subprocess.Popen[str]"
    ports: set[Port] = field(default_factory=set)
    connections: int = 0

    def __enter__(self) -> "Strangers":
        self._over = threading.Event()
        self._staying: list[socket.socket] = []
        self._thread = threading.Thread(target=self._disturb)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for connection in self._staying:
            connection.close()

    def _disturb(self) -> None:
        generator = random.Random(0)
        while not self._over.is_set():
            for port in (present := ports_of_ranks(self.launcher.pid)):
                new = port not in self.ports
                for words in self._words(generator, full=new):
                    with suppress(OSError):
                        self._say(port, words, stay=new and len(words) < 10)
            self.ports |= present
            time.sleep(0.02)

    def _words(self, generator: random.Random, *, full: bool) -> Iterator[bytes]:
        yield b""
        yield generator.randbytes(generator.choice([1, 8, 300]))
        if full:
            # The beginning of what torch's store, Open MPI, and browsers say.
            yield from (b"\x00", b"\x09\x0f\x3c\x00\x85", b"OPAL-TCP", b"GET / HTTP/1.1\r\n\r\n")
            yield generator.randbytes(100_000)
            yield b"\xff" * 64

    def _say(self, port: Port, words: bytes, *, stay: bool) -> None:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(port.address, port.address)
        connection = socket.create_connection((host, port.number), timeout=1.0)
        self.connections += 1
        connection.sendall(words)
        if stay:
            self._staying.append(connection)
        else:
            connection.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same settings in one process, which has nobody to listen to."""
    out = tmp_path_factory.mktemp("undisturbed")
    played = [sys.executable, *train(out, "--in-one-process", "--ranks", "2")]
    subprocess.run(played, check=True, capture_output=True, timeout=120)
    return out


@pytest.mark.parametrize("transport", ["mpi", "torch"])
def test_strangers_are_turned_away_and_the_weights_are_those_of_an_undisturbed_run(
    undisturbed: Path, tmp_path: Path, transport: str
) -> None:
    plan = str(undisturbed / "plan.json")
    launcher = start(2, *train(tmp_path, "--plan", plan, "--transport", transport))
    with Strangers(launcher) as strangers:
        done = finished(launcher, 180)
    assert done.returncode == 0, done.stderr
    assert strangers.connections > 50
    weights = [
        json.loads((folder / "result.json").read_text())["weights_sha256"]
        for folder in (undisturbed, tmp_path)
    ]
    assert weights[0] == weights[1]
    assert strangers.ports, "the store of torch has not been seen"
    assert {port.address for port in strangers.ports} == {"127.0.0.1"}
