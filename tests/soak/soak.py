"""Trains for long while faults come at random, and compares with a run that had none.

    python -m tests.soak.soak --minutes 60 --save-seconds 60 --fault-seconds 180 --out FOLDER

FBP on two ranks saves a checkpoint every so many seconds. At random moments, on average every so
many seconds, a rank or the launcher is killed, or a rank is stopped; after half of these a bit of
the newest checkpoint is flipped. Then the run is started again, as a person or a campaign would.

In the end its weights must be those of a run that nothing disturbed, with the same drains; and
between its saves no rank may grow.
"""

import argparse
import json
import math
import os
import random
import signal
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import psutil

from tests.faults.faulted_run import Ended, FaultedRun
from tests.faults.outcomes import Outcome
from tests.faults.tiny_run import flip_a_bit, newest_checkpoint

MOST_GROWTH = 0.02
LIMIT_SECONDS = 5
FAULTS = {
    "1": ("kill -9 of a rank", "the launcher ends the others at once"),
    "mpirun": ("kill -9 of mpirun", "its ranks notice and end"),
    "stop": (
        "a rank is stopped (SIGSTOP)",
        f"the others end after --receive-timeout, here {LIMIT_SECONDS} s",
    ),
    "0": ("kill -9 of a rank", "the launcher ends the others at once"),
}
"""What happens in turn: its name in the table of faults, and what becomes of the run."""
_ENDED_WITHIN_SECONDS = 60.0
_CALIBRATED_STEPS = 60
_SAMPLES_SECONDS, _MOMENT_SECONDS = 0.02, 0.1
_IN_FLIGHT_STEPS = 4


@dataclass
class Soak:
    """What a soak has found.

    Attributes:
        steps: optimizer steps of the run.
        seconds: from its first start to its end.
        faults: what happened, in order.
        damaged: the checkpoints of which a bit was flipped before the run went on.
        lost_steps: what each fault has cost.
        resumed_seconds: from each start to the first new step.
        growth: of each rank's resident memory, the largest found in any attempt, as a share.
        compared_saves: between how many saves that was measured.
        weights: of the run, and of the one that nothing has disturbed.
    """

    steps: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    lost_steps: list[int] = field(default_factory=list)
    resumed_seconds: list[float] = field(default_factory=list)
    growth: list[float] = field(default_factory=lambda: [0.0, 0.0])
    compared_saves: int = 0
    weights: tuple[str, str] = ("", "")

    @property
    def holds(self) -> bool:
        """Whether the weights are the same, and memory has stayed flat."""
        return self.weights[0] == self.weights[1] and max(self.growth) <= MOST_GROWTH


class Memory:
    """The resident memory of the ranks of one attempt, at the same points between its saves.

    What grows until the first save has ended is left out: imports, buffers that are allocated when
    they are needed first, and what saving needs itself. A point is the median of the samples
    between one save and the next.
    """

    def __init__(self) -> None:
        self._between: dict[int, list[list[int]]] = {}

    def sample(self, save: int, ranks: list[psutil.Process]) -> None:
        """Take note of what the ranks hold now, after so many saves of this attempt."""
        try:
            held = [rank.memory_info().rss for rank in ranks]
        except psutil.Error:
            return
        if len(held) == 2 and save:
            self._between.setdefault(save, []).append(held)

    def growth(self) -> tuple[list[float], int]:
        """Return by what share each rank has grown, and over how many saves."""
        points = sorted(save for save, samples in self._between.items() if len(samples) > 2)
        if len(points) < 3:
            return [0.0, 0.0], 0
        medians = [
            [statistics.median(held[rank] for held in self._between[save]) for rank in (0, 1)]
            for save in (points[0], points[-2])  # of the last one there may be little
        ]
        shares = [last / first - 1.0 for first, last in zip(*medians, strict=True)]
        return shares, points[-2] - points[0]


def soak(
    folder: Path,
    *,
    minutes: float,
    save_seconds: float,
    fault_seconds: float,
    seed: int,
    most_faults: int | None = None,
) -> Soak:
    """Run a soak in a folder and return what it has found.

    Args:
        folder: in which it trains.
        minutes: of training, without what faults cost.
        save_seconds: between two checkpoints.
        fault_seconds: between two faults, on average; half to one and a half times as many.
        seed: of what happens when.
        most_faults: how many there are at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw, found = random.Random(seed), Soak()
    step_seconds, plan = _calibrated(folder)
    # In steps, whose number does not depend on what else the machine does meanwhile.
    save_every = max(1, round(save_seconds / step_seconds))
    fault_every = max(1, round(fault_seconds / step_seconds))
    found.steps = max(2 * save_every, round(60 * minutes / step_seconds))
    options = training(found.steps, save_every, plan)
    run = FaultedRun(folder / "run", folder, *options)
    began = time.monotonic()
    try:
        while not (run.out / "result.json").exists():
            wanted = most_faults is None or len(found.faults) < most_faults
            fault_after = draw.uniform(0.5, 1.5) * fault_every if wanted else math.inf
            _train(run, draw, fault_after, save_every, found)
        found.seconds = time.monotonic() - began
        result = run.finish()
    finally:
        run.kill()
    drains = [step for step in result["drains"] if step % save_every]  # type: ignore[attr-defined]
    more = ("--drain-at", ",".join(map(str, drains))) if drains else ()
    whole = FaultedRun(folder / "whole", folder, *options, *more)
    whole.begin()
    undisturbed = whole.finish(limit_seconds=60 * minutes + 600)
    found.weights = str(result["weights_sha256"]), str(undisturbed["weights_sha256"])
    return found


def training(steps: int, save_every: int, plan: Path | None) -> list[str]:
    """Return the options of the run."""
    planned = ("--plan", str(plan)) if plan else ()
    return [
        *("--model", "resnet20,width=8", "--dataset", "digits", "--strategy", "fbp", *planned),
        *("--batch-size", "32", "--micro-batches", "4", "--lr", "0.01", "--steps", str(steps)),
        *("--checkpoint-steps", str(save_every), "--checkpoint-epochs", "0"),
        *("--keep-checkpoints", "3", "--receive-timeout", f"{LIMIT_SECONDS}s"),
    ]


def _calibrated(folder: Path) -> tuple[float, Path]:
    """Return the seconds of a step, and the plan that the ranks have made."""
    short = FaultedRun(
        folder / "calibration", folder, *training(_CALIBRATED_STEPS, _CALIBRATED_STEPS, None)
    )
    short.begin()
    seconds = short.finish()["step_seconds"]
    assert isinstance(seconds, list)
    return statistics.median(seconds), short.out / "plan.json"


def _train(
    run: FaultedRun, draw: random.Random, fault_after: float, save_every: int, found: Soak
) -> None:
    """Start the run, train until a fault or the end, and say what the fault before has cost.

    The fault comes after so many steps.
    """
    damaged = None
    if run.ended is not None:
        saved = list((run.out / "checkpoint").glob("step-*"))
        # After every second fault, in the next round after the others.
        number = len(found.faults)
        if len(saved) > 1 and (number + (number - 1) // len(FAULTS)) % 2 == 0:
            damaged = newest_checkpoint(run.out)
            flip_a_bit(draw.choice(sorted(damaged.iterdir())), draw)
            found.damaged.append(damaged.name)
    run.begin()
    step, seconds = run.first_new_step()
    if (ended := run.ended) is not None:
        _judge(run, ended, damaged, step, save_every)
        found.lost_steps.append(max(0, ended.step - step))
        found.resumed_seconds.append(seconds)
        Outcome(*FAULTS[found.faults[-1]], ended.seconds, seconds).record()
    assert run.launcher is not None
    fault_at = step + fault_after
    ranks, memory, newest, saves = run.ranks(), Memory(), run.saved_step(), 0
    while run.launcher.poll() is None:
        if run.saved_step() != newest:
            newest, saves = run.saved_step(), saves + 1
        memory.sample(saves, ranks)
        is_over = (run.out / "result.json").exists()
        is_due = run.last_step() >= fault_at
        if is_due and newest and not is_over and len(run.ranks()) == 2:
            kind = list(FAULTS)[len(found.faults) % len(FAULTS)]
            found.faults.append(kind)
            time.sleep(draw.uniform(0.0, _MOMENT_SECONDS))
            run.end_by(partial(_hit, run, kind, draw), _ENDED_WITHIN_SECONDS)
            break
        time.sleep(_SAMPLES_SECONDS)
    grown, between = memory.growth()
    if between:
        found.growth = [max(pair) for pair in zip(found.growth, grown, strict=True)]
        found.compared_saves = max(found.compared_saves, between)


def _judge(run: FaultedRun, ended: Ended, damaged: Path | None, step: int, save_every: int) -> None:
    """Check that a fault was told in a sentence at most, and cost no more than it may."""
    assert ended.code != 0
    assert len(ended.said) <= 2, ended.said
    behind = save_every if damaged else 0
    assert step >= ended.saved_step - behind
    # One that was being written is lost, and what came between it and the one before.
    unwritten = ended.begun_step - ended.saved_step
    most = save_every + behind + unwritten + _IN_FLIGHT_STEPS
    assert ended.step - step <= most, (step, ended)
    if damaged is not None:
        assert step < int(damaged.name.split("-")[1])
        assert damaged.name in run.log()


def _hit(run: FaultedRun, kind: str, draw: random.Random) -> None:
    assert run.launcher is not None
    if kind == "mpirun":
        run.launcher.kill()
    elif kind == "stop":
        os.kill(run.ranks()[draw.randrange(2)].pid, signal.SIGSTOP)
    else:
        os.kill(run.ranks()[int(kind)].pid, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run a soak as the command line says; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--save-seconds", type=float, default=60.0)
    parser.add_argument("--fault-seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    found = soak(
        given.out,
        minutes=given.minutes,
        save_seconds=given.save_seconds,
        fault_seconds=given.fault_seconds,
        seed=given.seed,
    )
    sys.stdout.write(json.dumps({**asdict(found), "holds": found.holds}, indent=2) + "\n")
    return 0 if found.holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
