"""Starting real ranks for tests."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

MPIRUN = Path(sys.executable).parent / "mpirun"
TIMEOUT_SECONDS = 420
PROGRAMS = Path(__file__).parent
_MOST_RANKS = 10
"""How many ranks may wait for the next test, of all numbers of ranks together: 300 MB each."""


def mpirun(
    ranks: int,
    *arguments: str,
    timeout_seconds: float = TIMEOUT_SECONDS,
    options: Sequence[str] = (),
    program: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m mpi4py ARGUMENTS` on so many ranks, more than there are cores if need be.

    `options` are further options of mpirun; `program` is what starts Python on each rank.
    """
    return finished(start(ranks, *arguments, options=options, program=program), timeout_seconds)


def finished(
    process: subprocess.Popen[str], timeout_seconds: float
) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process; it is killed if that does not come in time."""
    try:
        stdout, stderr = process.communicate(timeout=timeout_seconds)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def start(
    ranks: int,
    *arguments: str,
    options: Sequence[str] = (),
    program: str | None = None,
    output: int | None = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start the same and return; what is written goes to `output`."""
    environment = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [
        *(str(MPIRUN), "--bind-to", "none", "--oversubscribe"),
        *("--mca", "mpi_yield_when_idle", "1", "-n", str(ranks), *options),
        *(() if program is None else (program,)),
        *(sys.executable, "-m", "mpi4py", *arguments),
    ]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        text=True,
    )


def start_script(
    launcher: str, ranks: int, *arguments: str, folder: Path | None = None
) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` on so many ranks, as a user does with a script of their own.

    Args:
        launcher: mpirun or torchrun; "alone" starts the only rank without any.
        ranks: how many.
        arguments: the script and its arguments, or `-m` and a module.
        folder: where the launcher and its ranks put what they need while they run.
    """
    environment = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMP_NUM_THREADS": "1",
        **({} if folder is None else {"TMPDIR": str(folder)}),
    }
    beside = Path(sys.executable).parent
    start = {
        "mpirun": (
            *(beside / "mpirun", "--bind-to", "none", "--oversubscribe"),
            *("--mca", "mpi_yield_when_idle", "1", "-n", str(ranks), sys.executable),
        ),
        "torchrun": (beside / "torchrun", "--standalone", "--nproc-per-node", str(ranks)),
        "alone": (sys.executable,),
    }[launcher]
    return subprocess.Popen(
        [*start, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class _Server:
    """Ranks that run the programs of many tests: see rank_server.py."""

    def __init__(self, ranks: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hpc-lpm-ranks-"))
        self.requests = 0
        names = [self.folder / f"rank-{rank}" for rank in range(ranks)]
        for name in names:
            os.mkfifo(name)
        # Opened for reading as well, which waits for nobody; the ranks see its end when we do.
        self._pipes = [os.open(name, os.O_RDWR) for name in names]
        self._log = (self.folder / "log").open("w+b")
        program = str(PROGRAMS / "rank_server.py")
        self._process = start(ranks, program, str(self.folder), output=self._log.fileno())

    def run(
        self, arguments: Sequence[str], timeout_seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a program; the code is 0 if it ended well on all ranks, else the ranks are gone."""
        said = self._log.seek(0, os.SEEK_END)
        self.requests += 1
        line = json.dumps({"number": self.requests, "arguments": arguments}) + "\n"
        for pipe in self._pipes:
            os.write(pipe, line.encode())
        done = self.folder / f"done-{self.requests}"
        deadline = time.monotonic() + timeout_seconds
        while not done.exists() and self._process.poll() is None:
            if time.monotonic() > deadline:
                self.close()
                raise subprocess.TimeoutExpired(list(arguments), timeout_seconds, self._said(said))
            time.sleep(0.005)
        code = 0 if done.exists() else (self._process.poll() or 1)
        return subprocess.CompletedProcess(list(arguments), code, self._said(said).decode(), "")

    def _said(self, since: int) -> bytes:
        return os.pread(self._log.fileno(), 2**20, since)

    def close(self) -> None:
        """End the ranks: in order if they wait for a request, else at once."""
        for pipe in self._pipes:
            os.close(pipe)
        self._pipes = []
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # mpirun ends its ranks
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


_SERVERS: dict[int, _Server] = {}
"""By number of ranks, the one that was used last at the end."""


def run_in_ranks(
    ranks: int, program: str, *arguments: str, timeout_seconds: float = TIMEOUT_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a program of this folder on so many ranks, which go on to serve other tests.

    Starting ranks takes longer than training a tiny model. This is for programs that leave a
    process as they found it and that are expected to end well; a failure costs the ranks, and the
    next test gets new ones. What must fail, or needs an environment or a fresh process of its own,
    is started by `mpirun`.
    """
    server = _SERVERS.pop(ranks, None) or _Server(ranks)
    while _SERVERS and sum(_SERVERS) + ranks > _MOST_RANKS:
        _end(next(iter(_SERVERS)))
    _SERVERS[ranks] = server
    try:
        done = server.run([str(PROGRAMS / program), *arguments], timeout_seconds)
    except BaseException:
        _end(ranks)
        raise
    if done.returncode:
        _end(ranks)
    return done


def _end(ranks: int) -> None:
    server = _SERVERS.pop(ranks)
    if server._pipes:
        server.close()
    shutil.rmtree(server.folder)


@atexit.register
def end_ranks() -> None:
    """End all ranks that wait for a request."""
    for ranks in list(_SERVERS):
        _end(ranks)
