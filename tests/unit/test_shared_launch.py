"""Which trials share one launch of their ranks, and how their jobs take over what it trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from campaign_folders import STARTED, campaign, write_plan

from hpc_lpm.campaign import shared_training
from hpc_lpm.campaign.calls import Call
from hpc_lpm.campaign.config import Campaign
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.kept_model import EXIT_NOT_KEPT
from hpc_lpm.campaign.launch_records import Launch, read_attempts
from hpc_lpm.campaign.resources import (
    MEMORY_MARGIN,
    PROCESS_MEGABYTES,
    UNPROFILED_MINUTES,
    Request,
)
from hpc_lpm.campaign.shared_launch import SharedFolder, Turn, Turns
from hpc_lpm.campaign.shared_training import train_on_shared_ranks
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.trial_attempts import ATTEMPTS
from hpc_lpm.cluster.rank_nodes import RankNodes
from hpc_lpm.cluster.supervisor import CommandOutcome
from hpc_lpm.errors import InputError
from hpc_lpm.planning.plan import Plan


def shared(tmp_path: Path, **changes: Any) -> tuple[Steps, SharedFolder]:
    chosen = campaign(**{"share_launch": True, "strategies": ["limit", "fbp", "horovod"]} | changes)
    steps = Steps(chosen, CampaignFolder(tmp_path))
    for trial in steps.trials.values():
        if trial.planner:
            write_plan(steps.folder, chosen, trial)
    for step in steps.profiles.values():
        Path(step.output).parent.mkdir(exist_ok=True)
        Path(step.output).touch()
    return steps, SharedFolder(steps, "a-call")


def test_all_trials_of_a_race_share_a_launch_in_the_order_of_their_turns(tmp_path: Path) -> None:
    steps, folder = shared(tmp_path, models=["resnet20", "resnet32"])
    found = folder.waiting(next(iter(steps.trials)))
    assert [trial.contestant for trial in found] == ["limit", "fbp", "horovod"] * 2
    assert {trial.model for trial in found} == {"resnet20"}


def test_a_trial_of_another_number_of_ranks_starts_its_own(tmp_path: Path) -> None:
    steps, folder = shared(tmp_path, strategies=["sequential", "limit", "fbp"])
    name = next(trial.name for trial in steps.trials.values() if trial.strategy == "fbp")
    assert {trial.strategy for trial in folder.waiting(name)} == {"limit", "fbp"}


def test_what_an_engine_reads_once_keeps_contestants_apart(tmp_path: Path) -> None:
    fast = {"horovod": {"name": "fast", "cycle_time_milliseconds": 1.0}}
    steps, folder = shared(tmp_path, strategies=["limit", "horovod", fast])
    name = next(iter(steps.trials))
    assert {trial.contestant for trial in folder.waiting(name)} == {"limit", "horovod"}


def test_finished_failed_and_unplanned_trials_are_left_out(tmp_path: Path) -> None:
    steps, folder = shared(tmp_path, repeats=3)
    names = list(steps.trials)
    finished = steps.folder.run(names[1])
    finished.mkdir(parents=True)
    (finished / "result.json").touch()
    folder.add_failed(names[2])
    left = [trial.name for trial in folder.waiting(names[0])]
    assert left == [name for name in names if name not in (names[1], names[2])]
    for plan in tmp_path.glob("plans/*.json"):
        plan.unlink()
    assert {trial.strategy for trial in folder.waiting(names[0])} == {"limit", "horovod"}


def test_a_job_takes_over_the_result_of_its_trial_once(tmp_path: Path) -> None:
    steps, folder = shared(tmp_path)
    name = next(iter(steps.trials))
    assert not folder.take_over(name)
    trained = folder.run(name)
    trained.mkdir(parents=True)
    (trained / "result.json").write_text("trained")
    run = steps.folder.run(name)
    run.mkdir(parents=True)
    (run / "identity.json").write_text("kept")
    assert folder.take_over(name)
    assert (run / "result.json").read_text() == "trained"
    assert (run / "identity.json").read_text() == "kept"
    assert not folder.take_over(name)


class Ranks:
    """Stands for ranks that train so many of the trials that they are asked for, and end."""

    where = RankNodes(None, ("n1",), ())

    def __init__(self, arguments: Sequence[str], trains: int, stopped_by: str | None) -> None:
        self.folders = list(Turns.read(Path(arguments[-1])).folders.values())[:trains]
        self.stopped_by = stopped_by

    def supervised(self, _log: Path, _say: object, _seconds: float) -> CommandOutcome:
        for folder in map(Path, self.folders):
            folder.mkdir(parents=True)
            (folder / "result.json").write_text("trained")
        code = 75 if self.stopped_by else 0
        return CommandOutcome(("mpirun",), 2, STARTED, STARTED, code, self.stopped_by)


def train(
    steps: Steps, name: str, monkeypatch: pytest.MonkeyPatch, trains: int, stopped_by: str | None
) -> int | None:
    """Train a trial, and others, on ranks that train so many of them; 0 allows no launch."""

    def prepare(_campaign: Campaign, arguments: Sequence[str], *_: object) -> Ranks:
        assert trains
        return Ranks(arguments, trains, stopped_by)

    monkeypatch.setattr(shared_training, "prepare_start", prepare)
    trial, log = steps.trials[name], steps.folder.run(name) / "train.log"
    call = Call.model_construct(identifier="a-call")
    return train_on_shared_ranks(steps, trial, 2, "mpirun", log, lambda _: None, call)


def test_what_a_launch_that_was_stopped_has_trained_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, folder = shared(tmp_path, strategies=["limit", "fbp"])
    first, second, third, _ = steps.trials
    assert train(steps, first, monkeypatch, 2, "SIGUSR2") == 75
    assert [trial.name for trial in folder.waiting(third)] == list(steps.trials)[2:]
    for name in (first, second):
        assert train(steps, name, monkeypatch, 0, None) == 0
        assert (steps.folder.run(name) / "result.json").read_text() == "trained"
        launch = Launch.read(steps.folder.run(name) / "launch.json")
        assert (launch.exit_code, launch.stopped_by) == (0, None)


def test_what_a_launch_that_was_killed_has_left_is_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, folder = shared(tmp_path, strategies=["limit", "fbp"], repeats=1)
    for name in steps.trials:
        folder.run(name).mkdir(parents=True)
        (folder.run(name) / "result.json").write_text("of a launch without a record")
    for name, trains in zip(steps.trials, (2, 0), strict=True):
        assert train(steps, name, monkeypatch, trains, None) == 0
        assert (steps.folder.run(name) / "result.json").read_text() == "trained"


class NoRanks:
    """Stands for a launch that ends before any rank has a turn."""

    where = Ranks.where

    def supervised(self, *_: object) -> CommandOutcome:
        return CommandOutcome(("mpirun",), 2, STARTED, STARTED, 1, None)


def test_a_launch_that_ends_before_its_first_turn_blames_no_trial_of_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, folder = shared(tmp_path, strategies=["limit", "fbp"])
    first, second, *_ = steps.trials
    Turn(running=second).write(folder.root / f"{steps.folder.run_name(first)}.turns.turn.json")
    monkeypatch.setattr(shared_training, "prepare_start", lambda *_: NoRanks())
    trial, log = steps.trials[first], steps.folder.run(first) / "train.log"
    call = Call.model_construct(identifier="a-call")
    ended = train_on_shared_ranks(steps, trial, 2, "mpirun", log, lambda _: None, call)
    assert ended is None
    assert folder.failed() == (first,)


def test_a_model_that_could_not_be_kept_fails_its_attempt_in_every_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, _ = shared(tmp_path, strategies=["limit", "fbp"], repeats=1)
    first = next(iter(steps.trials))
    monkeypatch.setattr(shared_training, "keep_model", lambda *_: EXIT_NOT_KEPT)
    assert train(steps, first, monkeypatch, 2, None) == EXIT_NOT_KEPT
    run = steps.folder.run(first)
    launch = Launch.read(run / "launch.json")
    assert launch.exit_code == EXIT_NOT_KEPT
    assert launch.attempts == read_attempts(run / ATTEMPTS)
    assert [attempt.exit_code for attempt in launch.attempts] == [EXIT_NOT_KEPT]


def test_shared_ranks_and_a_target_exclude_each_other() -> None:
    target = {"metric": "train_loss", "value": "baseline"}
    with pytest.raises(InputError, match="share_launch and target"):
        campaign(share_launch=True, target=target)


def test_a_job_whose_ranks_may_train_others_asks_for_what_each_of_them_needs(
    tmp_path: Path,
) -> None:
    chosen = campaign(share_launch=True, strategies=["fbp", "gpipe"], repeats=3)
    steps = Steps(chosen, CampaignFolder(tmp_path))
    small, large, *_ = steps.trials.values()
    write_plan(steps.folder, chosen, small)
    # Until the plan of the other is there, nobody knows better.
    assert steps.request(small.name) == Request(PROCESS_MEGABYTES + 1, 6 * UNPROFILED_MINUTES)
    write_plan(steps.folder, chosen, large)
    plan = Plan.read(steps.folder.plan(large))
    stages = tuple(each.model_copy(update={"memory_bytes": 2**30}) for each in plan.stages)
    plan.model_copy(update={"stages": stages}).write(steps.folder.plan(large))
    needed = Request(PROCESS_MEGABYTES + int(1024 * MEMORY_MARGIN), 6 * UNPROFILED_MINUTES)
    assert steps.request(small.name) == steps.request(large.name) == needed
