"""A run of two ranks that is started again after every fault, until it has trained all steps."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.mpi.ranks import start

PATIENCE_SECONDS = 120.0
"""For a start, on a machine that others use as well."""

_TAIL_BYTES = 4096
_A_STEP = re.compile(rb'\{"step": (\d+), "epoch": \d+, "loss": ')
_STEP = re.compile(r"step-(\d+)")
_RESUMED = re.compile(r"resuming from .*, after step (\d+) of")


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        code: the launcher's exit code.
        said: the sentences of the toolkit, without those of progress.
        log: all that was written.
        seconds: from the fault until the last process was gone.
        saved_step: the step of the newest checkpoint that was whole when the fault came.
        begun_step: that of the newest which was whole or being written then.
        step: the last step that was reported by then.
    """

    code: int
    said: list[str]
    log: str
    seconds: float
    saved_step: int
    begun_step: int
    step: int


class FaultedRun:
    """One run in a folder, attempt by attempt.

    Args:
        out: the run's folder.
        logs: the folder of what the attempts write.
        options: of `hpc-lpm train`, but for --out and --resume.
    """

    def __init__(self, out: Path, logs: Path, *options: str) -> None:
        self.out = out
        self.attempts = 0
        self._options = options
        self._logs = logs
        self._log = logs / f"{out.name}-0.log"
        self._started = 0.0
        self.launcher: subprocess.Popen[str] | None = None
        self.ended: Ended | None = None

    def begin(self, *more: str) -> None:
        """Start the next attempt, which goes on from the last checkpoint."""
        self.attempts += 1
        self._log = self._logs / f"{self.out.name}-{self.attempts}.log"
        resume = ("--resume",) if self.attempts > 1 else ()
        words = ("-m", "hpc_lpm", "train", *self._options, "--out", str(self.out), *resume, *more)
        self._started = time.monotonic()
        with self._log.open("wb") as stream:
            self.launcher = start(2, *words, output=stream.fileno())

    def log(self) -> str:
        """Return what the attempt has written so far."""
        # mpirun ends some of its own writes with a zero byte.
        return self._log.read_text(errors="replace").replace("\0", "")

    def last_step(self) -> int:
        """Return the last step that the log of metrics has, -1 if there is none."""
        try:
            with (self.out / "metrics.jsonl").open("rb") as stream:
                stream.seek(-min(_TAIL_BYTES, stream.seek(0, os.SEEK_END)), os.SEEK_END)
                lines = stream.read().split(b"\n")[:-1]
        except OSError:
            return -1
        steps = [_A_STEP.match(line) for line in lines]
        return max((int(found[1]) for found in steps if found), default=-1)

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until something has happened while the attempt goes on."""
        assert self.launcher is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert self.launcher.poll() is None, f"it ended before {what}: {self.log()}"
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.log()}"
            time.sleep(0.01)

    def first_new_step(self) -> tuple[int, float]:
        """Wait for the first step of this attempt; return its number, and the seconds it took."""
        if self.attempts == 1:
            self.wait_until(lambda: self.last_step() >= 0, "the first step")
            return 0, time.monotonic() - self._started
        self.wait_until(lambda: bool(_RESUMED.search(self.log())), "what it resumes from")
        found = _RESUMED.search(self.log())
        assert found is not None
        step = int(found[1])
        self.wait_until(lambda: self.last_step() >= step, "the first new step")
        return step, time.monotonic() - self._started

    def ranks(self) -> list[psutil.Process]:
        """Return the processes of the ranks, in their order."""
        assert self.launcher is not None
        found = {}
        for process in psutil.Process(self.launcher.pid).children(recursive=True):
            try:
                number = process.environ().get("OMPI_COMM_WORLD_RANK")
                if number is not None and "hpc_lpm" in process.cmdline():
                    found.setdefault(int(number), process)
            except psutil.Error:
                continue
        return [found[rank] for rank in sorted(found)]

    def saved_step(self) -> int:
        """Return the step of the newest checkpoint, 0 if there is none."""
        return self._newest_step("step-*")

    def begun_step(self) -> int:
        """Return the step of the newest checkpoint that is whole or is being written."""
        return max(self.saved_step(), self._newest_step(".step-*"))

    def _newest_step(self, pattern: str) -> int:
        names = [path.name for path in (self.out / "checkpoint").glob(pattern)]
        return max((int(found[1]) for name in names if (found := _STEP.search(name))), default=0)

    def end_by(self, fault: Callable[[], object], limit_seconds: float) -> Ended:
        """Do something to the run, and wait until all its processes have ended.

        Fails if that takes longer than the limit.
        """
        assert self.launcher is not None
        everyone = [*self.ranks(), psutil.Process(self.launcher.pid)]
        saved, begun, step = self.saved_step(), self.begun_step(), self.last_step()
        began = time.monotonic()
        fault()
        try:
            self.launcher.wait(timeout=limit_seconds)
            psutil.wait_procs(everyone, timeout=max(1.0, limit_seconds))
        finally:
            seconds = time.monotonic() - began
            left = [each for each in everyone if _lives(each)]
            for process in left:
                process.kill()
            self.launcher.wait(timeout=10)
        assert not left, f"{left} did not end within {limit_seconds} s: {self.log()}"
        text = self.log()
        assert "Traceback" not in text
        said = [line for line in text.splitlines() if line.startswith("hpc-lpm: ")]
        code = self.launcher.returncode
        self.ended = Ended(code, said, text, seconds, saved, begun, step)
        return self.ended

    def finish(self, limit_seconds: float = 300.0) -> dict[str, object]:
        """Wait for the end of the run and return its result."""
        assert self.launcher is not None
        assert self.launcher.wait(timeout=limit_seconds) == 0, self.log()
        result: dict[str, object] = json.loads((self.out / "result.json").read_text())
        return result

    def kill(self) -> None:
        """Leave nothing behind, whatever became of it."""
        if self.launcher is not None and self.launcher.poll() is None:
            for process in [*self.ranks(), psutil.Process(self.launcher.pid)]:
                process.kill()
            self.launcher.wait(timeout=10)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
