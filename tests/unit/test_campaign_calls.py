"""What a call of Snakemake decides, says and keeps, without training anything."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from campaign_folders import campaign, write_plan, write_run

from hpc_lpm.campaign.beginning import describe_beginning
from hpc_lpm.campaign.calls import CALL, Call
from hpc_lpm.campaign.config import read_campaign
from hpc_lpm.campaign.damage import damaged_steps, damaged_trials, find_damage
from hpc_lpm.campaign.fingerprints import Fingerprints
from hpc_lpm.campaign.folder import CampaignFolder, Hashes
from hpc_lpm.campaign.identities import identities_of
from hpc_lpm.campaign.identity import IDENTITY, Identity
from hpc_lpm.campaign.resources import request_of
from hpc_lpm.campaign.steps import Steps
from hpc_lpm.campaign.workflow import load_call
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.errors import InputError

register([])

FBP = "resnet20-digits-fbp-lpm-k2-seed0-repeat0"
SEQUENTIAL = "resnet20-digits-sequential-k1-seed0-repeat0"
CallCampaign = Callable[..., tuple[Call, Steps]]


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CallCampaign:
    """Call a campaign as Snakemake does, and write down results for what is not there yet."""
    monkeypatch.chdir(tmp_path)

    def call_campaign(**changes: object) -> tuple[Call, Steps]:
        chosen = campaign(strategies=["sequential", "fbp"], repeats=1, **changes)
        Path("c.json").write_text(chosen.model_dump_json())
        call = load_call({}, ["c.json"], Path("c.json"), Path("results"))
        steps = call.steps(Path("results"))
        call.begin(steps.folder.root)
        for trial in steps.trials.values():
            if not (steps.folder.run(trial) / "result.json").exists():
                write_run(steps.folder, chosen, trial)
                call.identities.runs[trial.name].write(steps.folder.run(trial) / IDENTITY)
            if trial.planner and not steps.folder.plan(trial).exists():
                write_plan(steps.folder, chosen, trial)
        return call, steps

    return call_campaign


def said(call: Call, steps: Steps, *names: str) -> list[str]:
    return describe_beginning(steps, call.identities, names, damaged_trials(steps))


def test_what_is_trained_again_is_said_with_what_changed(called: CallCampaign) -> None:
    called()
    call, steps = called(optimizer={"lr": 0.01}, threads=2)
    assert said(call, steps, FBP) == [
        "kept 1 trial, training 1",
        "  1 again because optimizer.lr changed from 0.1 to 0.01 and threads changed from 1 to 2",
    ]
    assert said(call, steps) == ["kept 2 trials"]
    assert said(*called(seeds=[0, 7]), FBP.replace("seed0", "seed7"))[1] == "  1 new"


def test_a_new_release_with_another_option_that_is_off_trains_nothing_again() -> None:
    before = Identity.of({"lr": 0.1}, off={})
    after = Identity.of({"lr": 0.1, "novelty": None, "level": 0}, off={"novelty": None, "level": 0})
    assert before.digest == after.digest
    assert Identity.of({"lr": 0.1, "level": 1}, off={"level": 0}).digest != before.digest
    # False is something else than not decided.
    assert Identity.of({"lr": 0.1, "novelty": False}, off={"novelty": None}).digest != before.digest


def test_a_job_reads_what_its_call_has_decided_whatever_was_edited_since(
    called: CallCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, steps = called()
    monkeypatch.setenv(CALL, str(call.file(steps.folder.root).absolute()))
    Path("c.json").write_text("{}")
    job = load_call({}, ["c.json"], Path("c.json"), Path("results"), is_job=True)
    assert job == call
    assert job.steps(Path("results")).settings(FBP) == steps.settings(FBP)


def test_a_trial_does_not_start_once_its_module_or_its_data_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module, text = Path("net_of_call.py"), Path("a text.txt")
    module.write_text(
        "from torch import nn\ndef net(shape):\n    return [nn.Embedding(shape.classes, 4)]\n"
    )
    text.write_text("some words " * 999)
    document = {
        "name": "mine",
        "models": ["net_of_call:net"],
        "datasets": [f"text:{text}"],
        "strategies": ["sequential"],
        "steps": 1,
    }
    Path("c.json").write_text(json.dumps(document))
    chosen = read_campaign(Path("c.json"))
    root = Path("results/mine")
    identities = identities_of(Steps(chosen, CampaignFolder(root)), Fingerprints())
    call = Call.of(chosen, identities)
    (trial,) = call.identities.runs
    call.check_unchanged(trial, root)
    for path in (module, text):
        before = path.read_text()
        path.write_text(f"{before}# changed")
        with pytest.raises(InputError, match=r"changed since snakemake was called.*call snakemake"):
            call.check_unchanged(trial, root)
        path.write_text(before)
    call.check_unchanged(trial, root)


NO_JSON = ["", "{", "\0\0\0\0"]
OTHER_JSON = ["[]", '{"schema_version": 99}']


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (name, content)
        for name in ("result.json", "launch.json", "trace.json")
        for content in NO_JSON
    ]
    + [(name, content) for name in ("result.json", "launch.json") for content in OTHER_JSON],
)
def test_damaged_files_of_a_run_are_found(called: CallCampaign, name: str, content: str) -> None:
    _, steps = called()
    (steps.folder.run(FBP) / name).write_text(content)
    assert list(damaged_trials(steps)) == [FBP]
    damage = find_damage(steps)
    assert damage.of_trial(steps.trials[FBP]) == [str(damage.record)]
    assert damage.of_trial(steps.trials[SEQUENTIAL]) == []
    assert find_damage(steps, look=False).trials == {}


def test_damaged_plans_and_profiles_are_found_and_ask_for_no_resources(
    called: CallCampaign,
) -> None:
    _, steps = called()
    plan, profile = steps.folder.plan(steps.trials[FBP]), steps.profile_path(steps.trials[FBP])
    request_of(steps.settings(FBP), steps.campaign.resources, profile, plan)
    for path in (plan, profile):
        before = path.read_text()
        path.write_text(before[:50])
        assert list(damaged_steps(steps)) == [str(path)]
        with pytest.raises(FileNotFoundError):
            steps.request(FBP)
        path.write_text(before)


def test_what_is_left_of_other_settings_is_listed_and_removed_when_asked(
    called: CallCampaign, capsys: pytest.CaptureFixture[str]
) -> None:
    _, before = called()
    _, steps = called(optimizer={"lr": 0.01}, micro_batches=2)
    root = steps.folder.root
    old = {before.folder.run(name) for name in before.trials}
    assert run_guarded(app, ["campaign", "prune", str(root)]) == 0
    listed = capsys.readouterr().out
    assert "micro_batches changed from 4 to 2, optimizer.lr changed from 0.1 to 0.01" in listed
    assert "Nothing was removed" in listed
    assert all(path.exists() for path in old)
    assert run_guarded(app, ["campaign", "prune", str(root), "--yes"]) == 0
    assert not any(path.exists() for path in old)
    assert {path.name for path in root.glob("runs/*")} == {
        steps.folder.run_name(name) for name in steps.trials
    }
    assert steps.folder.plan(steps.trials[FBP]).exists()
    assert not before.folder.plan(before.trials[FBP]).exists()
    assert not damaged_steps(steps)
    capsys.readouterr()
    assert run_guarded(app, ["campaign", "prune", str(root)]) == 0
    assert "Nothing is left over" in capsys.readouterr().out


def test_what_calls_have_left_of_shared_launches_is_removed_when_asked(
    called: CallCampaign,
) -> None:
    call, steps = called(share_launch=True)
    root = steps.folder.root
    left, users = root / "shared" / call.identifier, root / "shared" / "mine"
    for path in (left, users):
        path.mkdir(parents=True)
        (path / "failed.json").touch()
    assert run_guarded(app, ["campaign", "prune", str(root), "--yes"]) == 0
    assert not left.exists()
    assert users.exists()


def test_what_a_user_has_put_into_a_campaigns_folder_is_no_leftover(
    called: CallCampaign, capsys: pytest.CaptureFixture[str]
) -> None:
    called()
    _, steps = called(optimizer={"lr": 0.01}, micro_batches=2)
    root = steps.folder.root
    users = [root / "runs" / "notes.txt", root / "runs" / "mine" / "weights.pt"]
    users += [root / kind / name for kind in ("plans", "profiles") for name in ("a.json", "b.log")]
    for path in users:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"mine": true}')
    assert run_guarded(app, ["campaign", "prune", str(root), "--yes"]) == 0
    said = capsys.readouterr().out
    assert " removed." in said
    assert not any(str(path) in said for path in users)
    assert all(path.exists() for path in users)


def test_a_finished_trial_waits_for_no_profile_that_comes_later(called: CallCampaign) -> None:
    _, steps = called()
    profile, plan = steps.runs[SEQUENTIAL].inputs[0], steps.runs[FBP].inputs[0]
    for name in ("trace.json", "launch.json"):
        assert (steps.folder.run(SEQUENTIAL) / name).exists()
    Path(profile).unlink(missing_ok=True)
    assert steps.waits_for(SEQUENTIAL) == []
    assert steps.waits_for(FBP) == [plan]
    (steps.folder.run(SEQUENTIAL) / "result.json").unlink()
    assert steps.waits_for(SEQUENTIAL) == [profile]


def test_data_that_are_not_on_the_machine_of_the_driver_are_no_fault(tmp_path: Path) -> None:
    chosen = campaign(datasets=["text:nowhere.txt"], models=["gpt"], strategies=["sequential"])
    steps = Steps(chosen, CampaignFolder(tmp_path / "synthetic"))
    call = Call.of(chosen, identities_of(steps, Fingerprints()))
    for trial in call.identities.runs:
        call.check_unchanged(trial, tmp_path)


@pytest.mark.parametrize(
    ("changes", "remade"),
    [
        ({"optimizer": {"lr": 0.01}}, {"runs"}),
        ({"cut_only_at": ["fc*"]}, {"runs", "plans"}),
        ({"micro_batches": 2}, {"runs", "plans", "profiles"}),
        ({"memory_format": "channels_last"}, {"runs", "plans", "profiles"}),
        ({"launcher": {"options": ["--bind-to", "core"]}}, {"runs", "plans", "profiles"}),
        ({"receive_timeout_seconds": 9.0, "seeds": [0, 1], "keep": ["weights"]}, set()),
        ({"restarts": 5, "elastic": True}, set()),
    ],
    ids=lambda value: "-".join(sorted(value)),
)
def test_profiles_and_plans_are_made_again_for_what_they_depend_on(
    changes: dict[str, object], remade: set[str]
) -> None:
    def hashes(**changes: object) -> Hashes:
        chosen = campaign(strategies=["fbp"], repeats=1, **changes)
        return identities_of(Steps(chosen, CampaignFolder(Path("x"))), Fingerprints()).hashes()

    before, after = hashes(), hashes(**changes)
    for kind in ("runs", "plans", "profiles"):
        old, new = set(getattr(before, kind).items()), set(getattr(after, kind).items())
        assert (not old & new) if kind in remade else old <= new


def test_a_contestant_with_other_stages_leaves_the_profile_of_the_others_alone() -> None:
    def profiles(*strategies: object) -> set[str]:
        folder = CampaignFolder(Path("x"))
        return set(Steps(campaign(strategies=list(strategies)), folder).profiles)

    assert profiles("fbp") < profiles("fbp", {"1f1b": {"stages": 3}})
