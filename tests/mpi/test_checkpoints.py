"""Checkpoints survive crashes and other partitions, and are refused where they do not fit."""

import json
import shutil
from pathlib import Path

import pytest

from tests.mpi.test_exactness import MLP, RESNET, cuts_of
from tests.mpi.test_resume import ADAMW, GPT, MUON, once, run_cases, settings

pytestmark = pytest.mark.mpi


def test_a_run_goes_on_with_other_stages_to_the_same_weights(tmp_path: Path) -> None:
    runs = {
        "resnet": settings(
            *(RESNET, "1f1b", 2, 4),
            optimizer={
                **{"name": "momentum", "weight_decay": 0.1},
                **{"no_decay": ["norm-and-bias"], "lr_scale": ["stem.*=0.5", "classifier.*=2"]},
            },
            learning_rate={"schedule": "linear"},
        ),
        "gpt": settings(f"{GPT},tied=true", "gpipe", 2, 4, dataset=dataset(GPT), optimizer=MUON),
    }
    cases = [
        {**run, "folder": str(tmp_path / name), "interrupt": once(1, 4)}
        for name, run in runs.items()
    ]
    cases += [{**run, "folder": str(tmp_path / f"{name}-whole")} for name, run in runs.items()]
    found = run_cases(2, cases, tmp_path / "two")
    whole = dict(zip(runs, found[2:], strict=True))
    for stages in (1, 3):
        for name in runs:
            shutil.copytree(tmp_path / name, tmp_path / f"{name}-{stages}")
        cases = [
            {
                **run,
                "cuts": cuts_of(run["model"], stages),
                "folder": str(tmp_path / f"{name}-{stages}"),
                "resume": True,
            }
            for name, run in runs.items()
        ]
        for name, outcome in zip(runs, run_cases(stages, cases, tmp_path / "other"), strict=True):
            assert outcome["weights_sha256"] == whole[name]["weights_sha256"], (name, stages)
            assert outcome["train_loss"] == whole[name]["train_loss"], (name, stages)
            assert len(outcome["step_seconds"]) == len(whole[name]["step_seconds"])
            assert len(outcome["idle_share"]) == stages
            assert outcome["interruptions"] == 1


def dataset(model: str) -> str:
    return settings(model, "sequential", 1, 4)["dataset"]


def spoil(folder: Path, how: str) -> None:
    (tensors,) = folder.glob("checkpoint/step-*/rank-1.safetensors")
    content = bytearray(tensors.read_bytes())
    match how:
        case "truncated":
            tensors.write_bytes(content[:-1])
        case "one bit":
            content[-1] ^= 1
            tensors.write_bytes(content)
        case "missing":
            tensors.unlink()
        case "manifest":
            (tensors.parent / "manifest.json").write_text("{")


REFUSALS = {
    "truncated": "is damaged at rank-1.safetensors: ",
    "one bit": "is damaged at rank-1.safetensors: its bytes are not those that were saved",
    "missing": "is damaged at rank-1.safetensors: no such file",
    "manifest": "manifest.json is not JSON",
}
OTHER = {
    "lr_discount": ({"lr_discount": True}, "saved with lr_discount False, this run has True"),
    "optimizer": ({"optimizer": ADAMW}, "saved with optimizer.name 'momentum', this run has"),
    "lead": ({"lead": 2}, "saved with lead 1, this run has 2"),
    "steps": ({"steps": 3}, "this run has 3: ask for at least as many"),
    "drains": ({"drain_at": [2]}, "saved with drain_at [], this run has [2]"),
    "model": ({"model": "mlp,width=25,layers=4"}, "saved with model 'mlp,width=24,layers=4'"),
}


def test_a_checkpoint_that_is_damaged_or_of_another_run_is_refused_by_all_ranks(
    tmp_path: Path,
) -> None:
    run = settings(MLP, "fbp", 2, 4)
    (stopped,) = run_cases(
        2, [{**run, "folder": str(tmp_path / "run"), "interrupt": once(0, 4)}], tmp_path
    )
    assert "stopped" in stopped
    cases = []
    for how in REFUSALS:
        shutil.copytree(tmp_path / "run", tmp_path / how)
        spoil(tmp_path / how, how)
        cases.append({**run, "folder": str(tmp_path / how), "resume": True})
    for change, _ in OTHER.values():
        cases.append({**run, **change, "folder": str(tmp_path / "run"), "resume": True})
    free = {"threads": 2, "transport": "torch", "receive_timeout_seconds": 50}
    cases.append({**run, **free, "folder": str(tmp_path / "run"), "resume": True})
    *refused, accepted = run_cases(2, cases, tmp_path)
    parts = [*REFUSALS.values(), *(part for _, part in OTHER.values())]
    for outcome, part in zip(refused, parts, strict=True):
        assert part in outcome["refused"], outcome
        assert outcome["refused"].endswith("."), outcome
    assert accepted["interruptions"] == 1


def test_a_crash_at_any_moment_of_saving_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    """Leftovers as after a crash before the manifest, before the rename, before the removal."""
    run = settings(MLP, "fbp", 2, 4)
    saved = tmp_path / "run" / "checkpoint"
    cases = [{**run, "folder": str(tmp_path / "run"), "interrupt": once(0, 4)}]
    (stopped,) = run_cases(2, [*cases], tmp_path)
    assert "stopped" in stopped
    (whole,) = saved.glob("step-*")
    step = int(whole.name.removeprefix("step-"))
    half = saved / f".step-{step + 2}.partial"
    half.mkdir()
    shutil.copy(whole / "rank-0.safetensors", half)
    shutil.copytree(whole, saved / f".step-{step + 1}.partial")
    shutil.copytree(whole, saved / f"step-{step - 1}")
    (resumed,) = run_cases(2, [{**run, "folder": str(tmp_path / "run"), "resume": True}], tmp_path)
    assert resumed["drains"] == [step]
    assert len(resumed["train_loss"]) == 16
    assert {path.name for path in saved.iterdir()} == {"step-16", "step-8"}


def test_checkpoints_by_steps_and_asked_drains_are_told_and_repeatable(tmp_path: Path) -> None:
    run = settings(MLP, "fbp", 2, 4)
    cases = [
        {**run, "folder": str(tmp_path / "a"), "checkpoint_steps": 5, "drain_at": [3, 10]},
        {**run, "folder": str(tmp_path / "b"), "drain_at": [3, 5, 10, 15]},
        {**run, "folder": str(tmp_path / "c"), "checkpoint_epochs": 0},
        {**run, "folder": str(tmp_path / "d"), "drain_at": [3, 16]},
    ]
    by_steps, asked, undrained, refused = run_cases(2, cases, tmp_path)
    assert by_steps["drains"] == asked["drains"] == [3, 5, 10, 15]
    assert by_steps["weights_sha256"] == asked["weights_sha256"] != undrained["weights_sha256"]
    assert undrained["drains"] == []
    assert not (tmp_path / "c" / "checkpoint").exists()
    assert "--drain-at has step 16" in refused["refused"]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    run = settings(RESNET, "1f1b", 2, 4, steps=2, optimizer=ADAMW)
    run_cases(2, [{**run, "folder": str(tmp_path / "run")}], tmp_path)
    files = sorted((tmp_path / "run" / "checkpoint" / "step-2").iterdir())
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    for file in files:
        if file.suffix == ".json":
            json.loads(file.read_text())
        else:
            length = int.from_bytes(file.read_bytes()[:8], "little")
            names = json.loads(file.read_bytes()[8 : 8 + length])
            assert all(name.split(".")[0] in {"layer", "optimizer", "random"} for name in names)
