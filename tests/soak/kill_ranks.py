"""Kills the ranks of one trial, and its launcher, again and again: it goes on to the same bits.

    python -m tests.soak.kill_ranks --kills 200 --seed 0 --out FOLDER

Each kill is a real `kill -9`, at a random moment: while ranks start, between two steps, or while a
checkpoint is written. `hpc-lpm campaign launch` restarts the ranks by itself, without a new job. In
the end the weights, losses and drains are those of a run that nobody has disturbed, no process is
left, and each kill has cost one start. tests/mpi/test_restarts.py does the same with a few kills.

No two kills in a row come before a step is made: a trial that makes no progress twice is ended.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil

from hpc_lpm.campaign.config import campaign_from_document
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.orphans import mark, processes_of
from hpc_lpm.campaign.steps import Steps
from tests.mpi.ranks import finished, start

PATIENCE_SECONDS = 180.0
"""For anything to happen, on a machine that others use as well."""
CHECKPOINT_STEPS = 5
START_SECONDS = 4.0
"""In which ranks that have just appeared import, connect and build their model, or about so."""
MOMENTS = ("starting", "training", "saving")
LAUNCHER = "launcher"
_RANK = "OMPI_COMM_WORLD_RANK"
ENDS_ALIKE = ("weights_sha256", "train_loss", "test_accuracy", "drains", "lag_counts")


@dataclass(frozen=True)
class Kill:
    """A moment and a victim: the number of a rank, or the launcher.

    `after` counts seconds since ranks have appeared while they start, else steps that none of the
    starts before has made.
    """

    moment: str
    victim: int | str
    after: float


def random_kills(count: int, ranks: int, seed: int) -> list[Kill]:
    """Draw kills, of which no two in a row come while ranks start."""
    chance, kills = random.Random(seed), []
    for _ in range(count):
        started = kills and kills[-1].moment == "starting"
        moment = chance.choice(MOMENTS[1:] if started else MOMENTS)
        victim = chance.choice([*range(ranks), LAUNCHER])
        after = chance.uniform(0, START_SECONDS) if moment == "starting" else chance.randint(1, 8)
        kills.append(Kill(moment, victim, after))
    return kills


@dataclass(frozen=True)
class Outcome:
    """How a disturbed run ended, and the seconds from kills to the first steps after them."""

    exit_code: int
    said: str
    seconds_to_step: list[float]


class Trial:
    """The only trial of a campaign in a folder, of `ranks` stages.

    Args:
        root: the folder of the campaign, which is made.
        steps: optimizer steps.
        write_plan: writes the plan to a path.
        keys: further keys of the campaign.
    """

    def __init__(
        self, root: Path, steps: int, write_plan: Callable[[Path], object], **keys: object
    ) -> None:
        document = {
            "name": root.name,
            "models": ["mlp,width=8"],
            "datasets": ["digits,size=8"],
            "strategies": ["fbp"],
            "batch_size": 16,
            "micro_batches": 4,
            "optimizer": {"lr": 0.01},
            "steps": steps,
            "checkpoint_steps": CHECKPOINT_STEPS,
            "receive_timeout_seconds": 60,
            **keys,
        }
        self.campaign = campaign_from_document(document, "a test")
        self.root, self.folder = root, CampaignFolder(root)
        self.folder.campaign.parent.mkdir(parents=True)
        self.folder.campaign.write_text(self.campaign.model_dump_json())
        self.steps = Steps(self.campaign, self.folder)
        ((self.name, self.trial),) = self.steps.trials.items()
        self.run = self.folder.run(self.name)
        self._said = root / "launch.said"
        plan = self.folder.plan(self.trial)
        plan.parent.mkdir()
        write_plan(plan)

    def launch(self, *options: str) -> "subprocess.Popen[str]":
        """Start what Snakemake would; what it says goes to a file, since nobody reads a pipe."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        mark(environment, self.root)
        command = [
            *(sys.executable, "-m", "hpc_lpm", "campaign", "launch", str(self.root)),
            *("--ranks", str(self.trial.processes), "--trial", self.name, *options),
            *("--log", str(self.run / "train.log"), "--", *self.steps.runs[self.name].arguments),
        ]
        with self._said.open("w") as stream:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def said(self) -> str:
        """Return what the launch has said."""
        return self._said.read_text()

    def undisturbed(self, ranks: int, out: Path, *options: str) -> dict:
        """Train with the settings of the trial, by hand, and return the result."""
        settings = self.run / "settings.json"
        command = ("-m", "hpc_lpm", "train", "--settings", str(settings), "--out", str(out))
        done = finished(start(ranks, *command, *options), 20 * PATIENCE_SECONDS)
        assert done.returncode == 0, done.stderr
        return result_of(out)

    def steps_done(self) -> int:
        """Count the steps in the log."""
        try:
            return (self.run / "metrics.jsonl").read_bytes().count(b'"loss":')
        except FileNotFoundError:
            return 0

    def begun_checkpoints(self) -> set[tuple[str, int]]:
        """Return what tells the checkpoints apart that were begun and not finished."""
        found = set()
        for path in (self.run / "checkpoint").glob(".step-*.partial"):
            with suppress(FileNotFoundError):
                found.add((path.name, path.stat().st_ctime_ns))
        return found


def result_of(folder: Path) -> dict:
    """Return the result of a run."""
    found: dict = json.loads((folder / "result.json").read_text())
    return found


class Killer:
    """Kills processes of a trial that has been launched; what was killed is gone by its end."""

    def __init__(self, trial: Trial, launched: "subprocess.Popen[str]") -> None:
        self.trial, self.launched = trial, launched
        self.furthest = 0
        self.times: list[float] = []
        self._gone: set[int] = set()

    def ranks(self) -> list[psutil.Process]:
        """Wait until all ranks of a new start are there, and return them in their order."""
        for _ in self._waiting("ranks"):
            found = {}
            for process in processes_of(self.trial.root):
                with suppress(psutil.Error):
                    rank, parent = process.environ().get(_RANK), process.parent()
                    # Not a child that a rank has forked.
                    is_new = process.pid not in self._gone
                    if rank and is_new and parent and _RANK not in parent.environ():
                        found[int(rank)] = process
            if len(found) == self.trial.trial.processes:
                return [found[rank] for rank in sorted(found)]
        raise AssertionError

    def kill(self, kill: Kill) -> None:
        """Wait for the moment, kill, and see that nothing of this start outlives the next one."""
        ranks = self.ranks()
        launcher = ranks[0].parent()
        assert launcher is not None
        # While ranks import, this is what the starts before have left.
        self.furthest = max(self.furthest, self.trial.steps_done())
        if kill.moment == "starting":
            time.sleep(kill.after)
        else:
            self.wait_for_steps(int(kill.after))
        if kill.moment == "saving":
            begun = self.trial.begun_checkpoints()
            for _ in self._waiting("a checkpoint"):
                if self.trial.begun_checkpoints() - begun:
                    break
        victim = launcher if kill.victim == LAUNCHER else ranks[int(kill.victim)]
        self.times.append(time.monotonic())
        os.kill(victim.pid, signal.SIGKILL)
        before = [launcher, *ranks]
        self._gone |= {process.pid for process in before}
        self.ranks()
        alive = [each.pid for each in before if is_alive(each)]
        assert not alive, f"{alive} live on beside the next start"

    def wait_for_steps(self, more: int) -> None:
        """Wait until so many steps are made that none of the starts before has made."""
        for _ in self._waiting(f"{more} steps beyond {self.furthest}"):
            if self.trial.steps_done() >= self.furthest + more:
                return

    def _waiting(self, what: str) -> Iterator[None]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            yield
            if self.launched.poll() is not None:
                raise AssertionError(f"the launch ended before {what}: {self.trial.said()}")
            time.sleep(0.002)
        raise AssertionError(f"waited in vain for {what}")


def is_alive(process: psutil.Process) -> bool:
    """Tell if a process is there and more than a name that nobody has taken note of."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class FirstSteps:
    """Notes in a thread when a start makes its first step, by the log that it writes anew."""

    def __init__(self, trial: Trial) -> None:
        self.times: list[float] = []
        self._trial, self._stop = trial, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def after(self, kills: Sequence[float]) -> list[float]:
        """Return the seconds to the first step after each kill that was followed by one."""
        found = []
        for kill, following in pairwise([*kills, math.inf]):
            steps = [time for time in self.times if kill < time < following]
            found += [steps[0] - kill] if steps else []
        return found

    def _watch(self) -> None:
        path, known, base = self._trial.run / "metrics.jsonl", 0, 0
        while not self._stop.wait(0.005):
            try:
                now = path.stat().st_ino
            except FileNotFoundError:
                continue
            steps = self._trial.steps_done()
            if now != known:
                known, base = now, steps
            elif steps > base:
                self.times.append(time.monotonic())
                base = sys.maxsize


def end(launched: "subprocess.Popen[str]") -> None:
    """End a launch, with all that it has started, if it has not ended by itself."""
    launched.terminate()
    launched.wait(timeout=PATIENCE_SECONDS)


def disturbed(trial: Trial, kills: Sequence[Kill], say: Callable[[str], None]) -> Outcome:
    """Launch the trial, kill as told, and let it go on to its end."""
    launched = trial.launch("--restarts", str(len(kills)))
    first_steps = FirstSteps(trial)
    try:
        killer = Killer(trial, launched)
        for number, kill in enumerate(kills, 1):
            killer.kill(kill)
            say(f"kill {number} of {len(kills)}: {kill}, after step {killer.furthest}")
        launched.wait(timeout=20 * PATIENCE_SECONDS)
        return Outcome(launched.returncode, trial.said(), first_steps.after(killer.times))
    finally:
        first_steps.close()
        end(launched)


def starts_of(run: Path) -> list[dict]:
    """Return the records of all starts."""
    found: list[dict] = json.loads((run / "attempts.json").read_text())["attempts"]
    return found


def left_of(root: Path) -> list[psutil.Process]:
    """Return the processes of a campaign that do not end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := processes_of(root)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def check_as_undisturbed(trial: Trial, kills: Sequence[Kill], outcome: Outcome) -> None:
    """Compare a disturbed run with one that nobody disturbs, and look for what is left of it."""
    assert outcome.exit_code == 0, outcome.said
    assert left_of(trial.root) == []
    codes = [each["exit_code"] for each in starts_of(trial.run)]
    assert len(codes) == len(kills) + 1
    assert codes[-1] == 0 and all(codes[:-1])
    found = result_of(trial.run)
    whole = trial.undisturbed(trial.trial.processes, trial.root / "whole")
    for name in ENDS_ALIKE:
        assert found[name] == whole[name], name


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Kill as often as asked for, and print what it took."""
    from tests.mpi.test_bad_input import LAYERS, write_plan

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    given = parser.parse_args()
    trial = Trial(
        given.out, 40 * given.kills + 100, lambda path: write_plan(path, LAYERS, 2), stages=2
    )
    kills = random_kills(given.kills, 2, given.seed)
    began = time.monotonic()
    outcome = disturbed(trial, kills, say)
    say(f"{len(kills)} kills and the end in {time.monotonic() - began:.0f} s")
    seconds = sorted(outcome.seconds_to_step)
    say(
        f"from a kill to the first step: median {median(seconds):.1f} s, "
        f"at most {seconds[-1]:.1f} s, n = {len(seconds)}"
    )
    check_as_undisturbed(trial, kills, outcome)
    say("the run ended in the bits of an undisturbed one, and no process is left")


if __name__ == "__main__":
    main()
