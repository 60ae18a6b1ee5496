"""Campaigns on the cluster of the tests: a driver in a folder of its own, stopped in any way."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.slurm.testbed import REPOSITORY, Shell

SNAKEMAKE = (sys.executable, str(Path(__file__).with_name("eager_snakemake.py")))
PATIENCE_SECONDS = 900.0


def wait_for(happened: Callable[[], object], what: str) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


class ClusterCampaign:
    """A campaign in the folder of a shell."""

    def __init__(self, shell: Shell, text: str) -> None:
        self.shell = shell
        (shell.folder / "tiny.yaml").write_text(text)
        self.root = shell.folder / "results" / "tiny"
        self._driver: subprocess.Popen[str] | None = None

    @property
    def command(self) -> list[str]:
        """What a user types."""
        return [
            *(*SNAKEMAKE, "--snakefile", str(REPOSITORY / "Snakefile")),
            *("--profile", str(REPOSITORY / "slurm"), "--configfile", "tiny.yaml"),
        ]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the driver to its end."""
        return self.shell.run(*self.command, *options, seconds=PATIENCE_SECONDS)

    def start(self) -> "subprocess.Popen[str]":
        """Start a driver."""
        self._driver = self.shell.start(*self.command)
        return self._driver

    def runs(self, strategy: str) -> Path:
        """Return the folder of the only trial of a strategy."""
        (found,) = self.root.glob(f"runs/*-{strategy}-*")
        return found

    def steps_done(self, strategy: str) -> int:
        """Return how many steps a trial has reported."""
        found = list(self.root.glob(f"runs/*-{strategy}-*/metrics.jsonl"))
        return found[0].read_text().count('"step"') if found else 0

    def read(self, strategy: str, name: str) -> Any:
        """Return a JSON file of a trial."""
        return json.loads((self.runs(strategy) / name).read_text())

    def exit_codes(self, strategy: str) -> list[int | None]:
        """Return how the attempts at a trial ended."""
        return [one["exit_code"] for one in self.read(strategy, "attempts.json")["attempts"]]

    def jobs(self, state: str = "RUNNING") -> list[str]:
        """Return the numbers of the cluster's jobs in a state."""
        options = ("--noheader", "--partition=compute", "--format=%i", f"--states={state}")
        return self.shell.output("squeue", *options).split()

    def wait_for_steps(self, strategy: str, steps: int) -> None:
        """Wait until a trial has trained that many steps."""

        def happened() -> bool:
            if self.steps_done(strategy) >= steps:
                return True
            ended = self._driver and self._driver.poll() is not None
            assert not ended, "\n".join(p.read_text() for p in self.shell.folder.glob("*.out"))
            return False

        wait_for(happened, f"{steps} steps of {strategy}")

    def wait_for_resumption(self, strategy: str, attempts: int) -> None:
        """Wait until an attempt after so many goes on from its checkpoint."""
        folder = self.runs(strategy)

        def happened() -> bool:
            ended = self._driver and self._driver.poll() is not None
            assert not ended, "\n".join(p.read_text() for p in self.shell.folder.glob("*.out"))
            if len(self.exit_codes(strategy)) <= attempts:
                return False
            try:
                written = (folder / "train.log").stat().st_mtime_ns
                text = (folder / "train.log").read_text()
            except FileNotFoundError:
                return False
            # What it has of the attempt before is older than the record of this one.
            is_new = written > (folder / "attempts.json").stat().st_mtime_ns
            return is_new and "resuming from" in text

        wait_for(happened, f"another attempt at {strategy}")

    def weights_without_interruption(self, strategy: str, *, drained: bool = True) -> str:
        """Train the same trial by hand, with the same drains but in one go; return its weights.

        `drained` tells that the interruption must have drained the pipeline within an epoch.
        """
        launch = self.read(strategy, "launch.json")
        drains = self.read(strategy, "result.json")["drains"]
        assert drains or not drained
        command = [word for word in launch["command"] if word != "--resume"]
        # On this machine instead of the cluster.
        start = next(i for i, word in enumerate(command) if word == sys.executable)
        mpirun = str(Path(sys.executable).parent / "mpirun")
        options = ("--bind-to", "none", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1")
        command = [mpirun, "-n", "2", *options, *command[start:]]
        out = self.shell.folder / "by hand"
        command[command.index("--out") + 1] = str(out)
        command += ["--drain-at", ",".join(map(str, drains))] if drains else []
        # A model that takes its time (`paced`) need not do so here.
        self.shell.output("env", "PACED_SECONDS=0", *command, seconds=PATIENCE_SECONDS)
        return str(json.loads((out / "result.json").read_text())["weights_sha256"])
