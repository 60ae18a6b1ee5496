"""A run that is hit again and again, at random moments, ends in an undisturbed run's bits."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.faulted_run import FaultedRun
from tests.faults.outcomes import Outcome
from tests.mpi.test_bad_input import LAYERS, write_plan

pytestmark = pytest.mark.mpi

SEED = int(os.environ.get("HPC_LPM_FAULT_SEED", "18"))
STEPS, SAVE_EVERY = 1600, 60
LIMIT_SECONDS = 5
ENDED_WITHIN_SECONDS = 30.0


def training(folder: Path, *options: str) -> list[str]:
    plan = write_plan(folder / "plan.json", LAYERS, 2)
    return [
        *("--model", "mlp,width=8", "--dataset", "digits,size=8", "--strategy", "fbp"),
        *("--plan", str(plan), "--batch-size", "16", "--micro-batches", "4", "--lr", "0.01"),
        *("--steps", str(STEPS), "--checkpoint-steps", str(SAVE_EVERY), "--keep-checkpoints", "3"),
        *("--receive-timeout", f"{LIMIT_SECONDS}s", *options),
    ]


def flip_a_bit(path: Path, draw: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def newest_checkpoint(out: Path) -> Path:
    """Return the folder of the newest checkpoint of a run."""
    found = (out / "checkpoint").glob("step-*")
    return max(found, key=lambda path: int(path.name.split("-")[1]))


def test_whatever_happens_to_its_ranks_a_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    draw = random.Random(SEED)
    run = FaultedRun(tmp_path / "run", tmp_path, *training(tmp_path))

    def kill(rank: int) -> Callable[[], None]:
        return lambda: os.kill(run.ranks()[rank].pid, signal.SIGKILL)

    def kill_launcher() -> None:
        assert run.launcher is not None
        run.launcher.kill()

    faults: list[tuple[str, str, Callable[[], None]]] = [
        ("kill -9 of a rank", "the launcher ends the others at once", kill(0)),
        ("kill -9 of a rank", "the launcher ends the others at once", kill(1)),
        ("kill -9 of mpirun", "the ranks end by themselves", kill_launcher),
        (
            "a rank that is stopped (SIGSTOP)",
            f"the others end after --receive-timeout, here {LIMIT_SECONDS} s",
            lambda: os.kill(run.ranks()[draw.randrange(2)].pid, signal.SIGSTOP),
        ),
    ]
    draw.shuffle(faults)
    run.begin()
    run.first_new_step()
    try:
        for fault, outcome, happen in faults:
            first = run.last_step()
            # Saving takes a good part of the time, so that some hit it.
            target = first + SAVE_EVERY + draw.randrange(2 * SAVE_EVERY)
            run.wait_until(lambda target=target: run.last_step() >= target, f"step {target}")
            time.sleep(draw.uniform(0.0, 0.1))
            ended = run.end_by(happen, ENDED_WITHIN_SECONDS)
            assert ended.code != 0
            assert len(ended.said) <= 1 or "SIGSTOP" in fault, ended.said
            saved = len(list((run.out / "checkpoint").glob("step-*")))
            damaged = saved > 1 and draw.random() < 0.5
            if damaged:
                newest = newest_checkpoint(run.out)
                flip_a_bit(draw.choice(sorted(newest.iterdir())), draw)
            run.begin()
            step, resumed_seconds = run.first_new_step()
            lost = ended.step - step
            assert lost <= (1 + damaged) * SAVE_EVERY + 4, (lost, ended)
            assert step >= ended.saved_step - damaged * SAVE_EVERY
            if damaged:
                assert step < int(newest.name.split("-")[1])
                assert newest.name in run.log()
            Outcome(fault, outcome, ended.seconds, resumed_seconds).record()
        found = run.finish()
    finally:
        run.kill()
    drains = [step for step in found["drains"] if step % SAVE_EVERY]
    options = ("--drain-at", ",".join(map(str, drains))) if drains else ()
    whole = FaultedRun(tmp_path / "whole", tmp_path, *training(tmp_path, *options))
    whole.begin()
    undisturbed = whole.finish()
    for name in ("weights_sha256", "train_loss", "drains"):
        assert found[name] == undisturbed[name], name
    assert found["interruptions"] == len(faults)
