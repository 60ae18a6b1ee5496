"""A longer trial goes on from the checkpoint of a shorter one, and computes the same."""

from pathlib import Path
from typing import Any

import pytest
from campaign_folders import campaign

from hpc_lpm.campaign.calls import Call
from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.folder import CampaignFolder
from hpc_lpm.campaign.identities import identities_of
from hpc_lpm.campaign.launch_records import Attempt, begin_attempt, end_attempt
from hpc_lpm.campaign.launching import launch_trial
from hpc_lpm.campaign.runs import read_run
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.engine.result import RunResult


def train(root: Path, said: list[str], **changes: Any) -> RunResult:
    """Call a campaign of one trial in `root` and train it as its job does."""
    settings = {
        "name": root.name,
        "models": ["mlp,width=8"],
        "datasets": ["digits,size=8"],
        "strategies": ["sequential"],
        "repeats": 1,
        "keep": ["checkpoints"],
        **changes,
    }
    chosen = campaign(**settings)
    call = Call.of(chosen, identities_of(Steps(chosen, CampaignFolder(root)), Fingerprints()))
    call.begin(root)
    steps = call.steps(root.parent)
    (name,) = steps.trials
    folder = steps.folder.run(name)
    arguments = steps.runs[name].arguments
    log = folder / "train.log"
    assert launch_trial(steps, name, arguments, 1, "mpirun", log, said.append, call=call) == 0
    return read_run(folder, steps.trials[name], steps.settings(name)).result


def test_it_ends_in_the_weights_of_one_that_was_trained_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    train(tmp_path / "grown", said, epochs=1)
    assert not any("goes on from a copy" in line for line in said)
    longer = train(tmp_path / "grown", said, epochs=2)
    assert any("goes on from a copy" in line for line in said)
    at_once = train(tmp_path / "at-once", said, epochs=2)
    assert longer.weights_sha256 == at_once.weights_sha256
    assert longer.train_loss == at_once.train_loss
    assert len(longer.step_seconds) == len(at_once.step_seconds)
    assert (longer.interruptions, at_once.interruptions) == (1, 0)


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": {"schedule": "cosine"}}, {"optimizer": {"lr": 0.01}}],
    ids=["a rate that depends on the length", "another rate"],
)
def test_it_starts_from_the_beginning_where_it_would_compute_something_else(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    said: list[str] = []
    before = changes if "learning_rate" in changes else {}
    train(tmp_path / "grown", said, epochs=1, **before)
    longer = train(tmp_path / "grown", said, epochs=2, **changes)
    assert not any("goes on from a copy" in line for line in said)
    assert longer.interruptions == 0


def test_attempts_that_a_run_goes_on_from_are_kept(tmp_path: Path) -> None:
    path, first = tmp_path / "attempts.json", Attempt(started="2026-01-02T03:04:05Z", call="a")
    end_attempt(path, begin_attempt(path, first), first.started, 0)
    second = Attempt(started="2026-01-03T03:04:05Z", call="b")
    goes_on = begin_attempt(path, second, goes_on=True)
    assert [attempt.call for attempt in goes_on] == ["a", "b"]
    end_attempt(path, goes_on, second.started, 0)
    assert [attempt.call for attempt in begin_attempt(path, second)] == ["b"]
