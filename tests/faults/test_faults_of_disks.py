"""A file system that turns read-only, or is gone, while a run writes to it."""

import random
import time
from pathlib import Path

import pytest

from tests.faults.broken_disk import broken_disk
from tests.faults.faulted_run import FaultedRun
from tests.faults.outcomes import Outcome
from tests.faults.tiny_run import ENDED_WITHIN_SECONDS, SAVE_EVERY, SEED, training

pytestmark = pytest.mark.mpi


def test_a_run_ends_by_a_sentence_and_goes_on_once_the_disk_is_back(tmp_path: Path) -> None:
    draw = random.Random(SEED)
    with broken_disk(tmp_path) as disk:
        # A rank that sees the fault speaks, however long that takes, not one that waits for it.
        options = training(tmp_path, limit_seconds=round(ENDED_WITHIN_SECONDS / 2))
        run = FaultedRun(disk.folder / "run", tmp_path, *options)
        run.begin()
        run.first_new_step()
        try:
            for fault, happen, reason in (
                ("a file system turns read-only", disk.make_read_only, "Read-only file system"),
                ("a file system is gone", disk.vanish, "Input/output error"),
            ):
                target = run.last_step() + SAVE_EVERY + draw.randrange(2 * SAVE_EVERY)
                run.wait_until(lambda target=target: run.last_step() >= target, f"step {target}")
                time.sleep(draw.uniform(0.0, 0.1))
                ended = run.end_by(happen, ENDED_WITHIN_SECONDS)
                assert ended.code == 1, ended
                (sentence,) = ended.said
                assert reason in sentence
                assert str(disk.folder) in sentence
                disk.unmount()
                disk.mount()
                run.begin()
                step, resumed_seconds = run.first_new_step()
                # What was not on the disk yet is lost with it, never half of it taken for whole.
                assert step >= ended.saved_step - SAVE_EVERY
                outcome = "one sentence names the file and why; nothing goes on by itself"
                Outcome(fault, outcome, ended.seconds, resumed_seconds).record()
        finally:
            run.kill()
