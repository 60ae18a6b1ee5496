"""A trial that lost a rank starts again by itself, as long as that gets it further."""

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from campaign_folders import campaign, write_folder, write_plan

from hpc_lpm.campaign import rank_start
from hpc_lpm.campaign.calls import Call
from hpc_lpm.campaign.damage import damaged_trials
from hpc_lpm.campaign.elastic import plan_again
from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identities import identities_of
from hpc_lpm.campaign.launch_records import Attempt, AttemptRecord, Launch, read_attempts
from hpc_lpm.campaign.launching import launch_trial
from hpc_lpm.campaign.notes import notes_on
from hpc_lpm.campaign.restarts import no_progress_of_jobs
from hpc_lpm.campaign.results import load_results
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trial_attempts import RANKS_LOST
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan

NAME = "resnet20-digits-sequential-k1-seed0-repeat0"
PIPELINE = "resnet20-digits-fbp-lpm-k2-seed0-repeat0"
KILLED = 128 + signal.SIGKILL
DONE = "done"

# The n-th start logs so many steps and ends as the course of a case has it.
COURSE = """
import json, os, pathlib, sys
folder, course = pathlib.Path({folder!r}), {course!r}
count = folder / "starts"
number = len(count.read_text()) if count.exists() else 0
with count.open("a") as stream:
    stream.write("x")
steps, end = course[min(number, len(course) - 1)]
print("start", number, flush=True)
lines = [json.dumps(dict(step=step, seconds=0.1)) + "\\n" for step in range(steps)]
(folder / "metrics.jsonl").write_text("".join(lines))
if end == "done":
    (folder / "result.json").write_text("{{}}")
elif end == "hangs":
    sys.exit("hpc-lpm: rank 1: nothing came for 60 s: rank 0 hangs or is gone; raise it.")
elif end < 0:
    os.kill(os.getpid(), -end)
else:
    sys.exit(end)
"""


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    found = write_folder(tmp_path / "c", campaign())
    for name in ("result.json", "launch.json", "metrics.jsonl"):
        (found.run(NAME) / name).unlink(missing_ok=True)
    return found


def course_is(
    monkeypatch: pytest.MonkeyPatch, folder: CampaignFolder, *course: tuple[int, Any]
) -> None:
    code = COURSE.format(folder=str(folder.run(NAME)), course=course)
    monkeypatch.setattr(rank_start, "rank_command", lambda *_: [sys.executable, "-c", code])


def launch(folder: CampaignFolder, said: list[str], **options: Any) -> int:
    steps = Steps(folder.read_campaign(), folder)
    log = folder.run(NAME) / "train.log"
    return launch_trial(steps, NAME, [], 1, "mpirun", log, said.append, **options)


def attempts(folder: CampaignFolder) -> tuple[Attempt, ...]:
    return read_attempts(folder.run(NAME) / "attempts.json")


@pytest.mark.parametrize(
    ("course", "restarts", "code", "starts", "sentence"),
    [
        ([(3, -9), (5, DONE)], 2, 0, 2, "were lost after step 3 (exit code 137): restart 1 of 2"),
        ([(3, -9), (5, DONE)], 0, KILLED, 1, None),
        ([(1, -9), (2, -11), (3, -9)], 2, KILLED, 3, "all of 2 restarts are used up"),
        # While it starts, it may be lost once more.
        ([(3, -9), (3, -9), (6, -9), (6, -9), (7, DONE)], 9, 0, 5, "restart 4 of 9"),
        ([(3, -9), (3, -9), (3, -9)], 9, KILLED, 3, "no step beyond step 3"),
        ([(0, -9), (0, -9)], 9, KILLED, 2, "2 attempts in a row have made no step beyond step 0"),
        ([(3, 1), (5, DONE)], 2, 0, 2, "failed after step 3 (exit code 1): restart 1 of 2"),
        ([(3, 1), (3, 1)], 9, 1, 2, "and had come as far before: a restart would make no progress"),
        ([(3, 70), (3, 70)], 9, 70, 2, "and had come as far before"),
        # A wait in vain is a loss, whatever its exit code.
        ([(3, "hangs"), (3, "hangs"), (5, DONE)], 9, 0, 3, "were lost after step 3 (exit code 1)"),
        ([(0, "hangs"), (3, 1), (3, 1)], 9, 1, 3, "failed after step 3 (exit code 1), and had"),
        ([(0, 1)], 9, 1, 1, "before the first step (exit code 1), as they would again"),
        ([(3, 2)], 9, 2, 1, None),
        ([(3, 75)], 9, 75, 1, None),
        ([(3, 0), (5, DONE)], 2, 0, 2, f"were lost after step 3 (exit code {RANKS_LOST})"),
    ],
)
def test_what_ended_it_and_how_far_it_came_decide_whether_it_starts_again(
    course: list[tuple[int, Any]],
    restarts: int,
    code: int,
    starts: int,
    sentence: str | None,
    folder: CampaignFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    course_is(monkeypatch, folder, *course)
    said: list[str] = []
    assert launch(folder, said, restarts=restarts) == code
    found = attempts(folder)
    assert [each.restart for each in found] == list(range(starts))
    assert [each.step for each in found] == [steps for steps, _ in course[:starts]]
    assert found[-1].exit_code == code
    about = [line for line in said if line.startswith(NAME) and "its ranks" in line]
    assert (sentence is None) == (about == [])
    assert sentence is None or sentence in about[-1]
    # The log keeps what every start has said.
    log = (folder.run(NAME) / "train.log").read_text()
    assert [f"start {number}" in log for number in range(starts)] == [True] * starts
    assert log.count("--- its ranks") == starts - 1


def test_the_campaign_says_how_often_and_a_launch_that_follows_begins_a_new_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "c", campaign(restarts=1))
    (folder.run(NAME) / "result.json").unlink()
    course_is(monkeypatch, folder, (1, -9), (2, -9), (3, DONE))
    said: list[str] = []
    assert launch(folder, said) == KILLED
    assert len(attempts(folder)) == 2
    assert launch(folder, said) == 0
    assert [each.restart for each in attempts(folder)] == [0, 1, 0]
    assert (folder.run(NAME) / "train.log").read_text() == "start 2\n"


def called(folder: CampaignFolder) -> Call:
    steps = Steps(folder.read_campaign(), folder)
    return Call.of(folder.read_campaign(), identities_of(steps, Fingerprints()))


def test_jobs_of_one_call_that_get_no_further_are_the_last_ones(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, said = called(folder), []
    course_is(monkeypatch, folder, (3, -9), (3, -9), (3, -9), (5, DONE))
    for number in range(3):
        assert launch(folder, said, restarts=0, call=call, attempt=number + 1) == KILLED
    assert len(attempts(folder)) == 3
    assert launch(folder, said, restarts=0, call=call, attempt=4) == KILLED
    assert len(attempts(folder)) == 3
    assert f"{NAME} is not started: 2 jobs in a row have made no step beyond step 3" in said[-1]
    # Somebody who calls again wants it tried again.
    assert launch(folder, said, restarts=0, call=called(folder)) == 0


def test_what_a_lost_launch_could_not_record_is_read_from_its_log() -> None:
    def attempt(step: int | None, restart: int = 0, call: str | None = "a") -> Attempt:
        return Attempt(started=datetime.now(UTC), step=step, restart=restart, call=call)

    fruitless = [attempt(3), attempt(3), attempt(3)]
    assert no_progress_of_jobs(fruitless, "a") is not None
    assert no_progress_of_jobs(fruitless, "b") is None
    assert no_progress_of_jobs(fruitless, None) is None
    assert no_progress_of_jobs([attempt(3), attempt(3), attempt(4)], "a") is None
    assert no_progress_of_jobs([attempt(3), attempt(3), attempt(None)], "a") is None
    # Starts within one job count as one.
    assert no_progress_of_jobs([attempt(3), attempt(3, 1), attempt(3, 2)], "a") is None
    others = [attempt(3, call="b"), attempt(3, call="b"), attempt(3)]
    assert no_progress_of_jobs(others, "a") is None


def test_the_last_attempt_has_come_as_far_as_its_log(folder: CampaignFolder) -> None:
    record = folder.run(NAME) / "attempts.json"
    started = datetime.now(UTC)
    AttemptRecord(attempts=(Attempt(started=started, step=2), Attempt(started=started))).write(
        record
    )
    assert [each.step for each in read_attempts(record, 7)] == [2, 7]


WAITS = """
import json, pathlib, signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_time_limit_that_leaves_no_time_for_a_step_ends_a_trial(
    folder: CampaignFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, earlier: int
) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$*" >> "{calls}"\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setattr(rank_start, "rank_command", lambda *_: [sys.executable, "-c", WAITS])
    call, log = called(folder), folder.run(NAME) / "train.log"
    before = Attempt(started=datetime.now(UTC), step=0, exit_code=75, call=call.identifier)
    AttemptRecord(attempts=(before,) * earlier).write(folder.run(NAME) / "attempts.json")
    log.unlink(missing_ok=True)

    def stop() -> None:
        while not log.exists() or "ready" not in log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    threading.Thread(target=stop, daemon=True).start()
    said: list[str] = []
    assert launch(folder, said, call=call) == 75
    requeued = "requeue 4711" in calls.read_text().splitlines()
    assert requeued is (earlier == 0)
    (about,) = [line for line in said if "the queue" in line]
    assert ("resources.runtime_minutes" in about) is (earlier == 1)


def test_a_run_of_fewer_devices_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    chosen = campaign()
    folder = write_folder(tmp_path / "c", chosen)
    path = folder.run(PIPELINE) / "launch.json"
    launched = Launch.read(path)
    again = Attempt(started=launched.started, planned_for=1)
    launched.model_copy(update={"planned_for": 1, "attempts": (again,)}).write(path)
    result = folder.run(PIPELINE) / "result.json"
    document = json.loads(result.read_text())
    result.write_text(json.dumps({**document, "ranks": 1, "cuts": [0, 4]}))

    found = load_results(folder.root)
    assert PIPELINE not in set(found.summary["trial"])
    (missing,) = found.missing
    assert missing.trial.name == PIPELINE
    assert "planned again for 1 of 2 ranks" in missing.reason
    assert found.refused_sentence() is None
    assert any(PIPELINE in note and "A device was gone" in note for note in notes_on(found))
    # It is as it should be: nothing is trained again for it.
    assert damaged_trials(Steps(chosen, folder)) == {}


@pytest.mark.parametrize(
    ("strategies", "name", "clause"),
    [
        (["sequential"], NAME, "needs no plan"),
        (
            [{"fbp": {"cuts": [2]}}],
            "resnet20-digits-fbp-own-k2-seed0-repeat0",
            "its cuts are given",
        ),
        (["fbp"], PIPELINE, "does not exist"),
    ],
)
def test_why_a_trial_cannot_go_on_with_fewer_devices_is_said(
    strategies: list[Any], name: str, clause: str, tmp_path: Path
) -> None:
    chosen = campaign(strategies=strategies)
    steps = Steps(chosen, CampaignFolder(tmp_path))
    trial = steps.trials[name]
    with pytest.raises(InputError, match=clause):
        plan_again(steps, trial, steps.settings(name), trial.processes, None)


def test_the_last_device_is_not_taken_away(tmp_path: Path) -> None:
    chosen = campaign(strategies=["fbp"])
    steps = Steps(chosen, CampaignFolder(tmp_path))
    write_plan(steps.folder, chosen, steps.trials[PIPELINE])
    with pytest.raises(InputError, match="no device is left"):
        plan_again(steps, steps.trials[PIPELINE], steps.settings(PIPELINE), 1, None)


def test_a_trial_is_planned_for_one_stage_less_or_for_the_places_that_are_left(
    tmp_path: Path,
) -> None:
    chosen = campaign(strategies=["fbp"], stages=4)
    steps = Steps(chosen, CampaignFolder(tmp_path))
    ((name, trial),) = [each for each in steps.trials.items() if each[1].repeat == 0]
    write_plan(steps.folder, chosen, trial)
    for ranks, most, left in ((4, None, 3), (4, 2, 2), (2, None, 1)):
        fewer = plan_again(steps, trial, steps.settings(name), ranks, most)
        assert (fewer.ranks, fewer.stages) == (left, left)
        found = Plan.read(fewer.plan)
        assert (found.planner, len(found.stages)) == (trial.planner, left)
        assert found.options["micro_batches"] == chosen.micro_batches
