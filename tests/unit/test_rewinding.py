"""`--non-finite rewind`: what a user sees, and the rate and the limit of it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.engine.checkpoint import behind, save
from hpc_lpm.engine.checkpoint.store import checkpoints_of
from hpc_lpm.models.registry import create_model
from tests.mpi.spoiled_digits import SAMPLES

register([])

BATCH, FAULT, EVERY, SEED = 16, 6, 4, 3
AN_EPOCH = SAMPLES // BATCH
MODEL = "mlp,width=8,layers=3"


def order(epoch: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + epoch)
    return torch.randperm(SAMPLES, generator=generator)


def train(out: Path, *options: str, fault: int = FAULT) -> int:
    spoiled = int(order()[fault * BATCH])
    return run_guarded(
        app,
        [
            *("train", "--model", MODEL, "--seed", str(SEED)),
            *("--dataset", f"tests.mpi.spoiled_digits:make,sample={spoiled}"),
            *("--batch-size", str(BATCH), "--micro-batches", "1", "--optimizer", "sgd"),
            *("--lr", "0.1", "--lr-schedule", "linear", "--non-finite", "rewind"),
            *("--out", str(out), *options),
        ],
    )


def result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def by_hand(steps: int, left_out: range) -> dict[str, torch.Tensor]:
    """The weights of a plain loop that passes over some batches, and whose rate falls linearly."""
    dataset = load_dataset("tests.mpi.spoiled_digits:make")
    model = create_model(MODEL, dataset.shape, SEED)
    layers = [model.build_layer(index, SEED) for index in range(len(model.layers))]
    parameters = [p for layer in layers for p in layer.parameters()]
    for step, samples in enumerate(torch.split(order(), BATCH)[:steps]):
        if step in left_out:
            continue
        value = dataset.train.inputs(samples)
        for layer in layers:
            value = layer(value)
        torch.nn.functional.cross_entropy(value, dataset.train.targets(samples)).backward()
        for p in parameters:
            with torch.no_grad():
                assert p.grad is not None
                p.sub_(p.grad, alpha=0.1 * (1 - step / steps))
            p.grad = None
    return {
        f"layer.{index}.{name}": tensor
        for index, layer in enumerate(layers)
        for name, tensor in layer.state_dict().items()
    }


def test_it_goes_on_behind_the_fault_at_the_rate_of_that_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(out, "--steps", str(AN_EPOCH), "--checkpoint-steps", str(EVERY)) == 0
    said = capsys.readouterr().out
    assert f"step {FAULT}: the loss or the weights are not finite: back to the weights of" in said
    assert f"the batches of steps {EVERY} to {FAULT} are left out (1 of at most 3" in said
    assert f"steps {EVERY} to {FAULT} were left out" in said
    newest = checkpoints_of(out / "checkpoint")[0] / "rank-0.safetensors"
    found, expected = load_file(newest), by_hand(AN_EPOCH, range(EVERY, FAULT + 1))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step" in line]
    assert [line["step"] for line in steps] == list(range(AN_EPOCH))
    assert [line["step"] for line in steps if line["loss"] is None] == [FAULT]


def test_ranks_that_one_process_plays_rewind_and_go_on_from_what_was_saved_behind(
    tmp_path: Path,
) -> None:
    played = ("--strategy", "fbp", "--in-one-process", "--ranks", "2")
    played += ("--steps", str(AN_EPOCH), "--checkpoint-steps", str(EVERY))
    out = tmp_path / "run"
    assert train(out, *played, "--keep-checkpoints", "9") == 0
    whole = result(out)
    assert whole["rewinds"] == [{"checkpoint_step": EVERY, "step": FAULT}]
    saved = checkpoints_of(out / "checkpoint")
    assert [path.name for path in saved] == ["step-10", "step-8", f"step-{FAULT + 1}", "step-4"]
    (out / "result.json").unlink()
    for path in saved[:-1]:
        for each in path.iterdir():
            each.unlink()
        path.rmdir()
    assert train(out, *played, "--keep-checkpoints", "9", "--resume") == 0
    resumed = result(out)
    for name in ("weights_sha256", "train_loss", "rewinds", "drains"):
        assert resumed[name] == whole[name], name


def test_a_run_rewinds_as_often_as_it_may_and_then_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = ("--epochs", "3", "--checkpoint-steps", "2", "--rewinds")
    assert train(tmp_path / "enough", *epochs, "3") == 0
    assert len(result(tmp_path / "enough")["rewinds"]) == 3
    assert [each["epoch"] for each in result(tmp_path / "enough")["evaluations"]] == [1, 2, 3]
    capsys.readouterr()
    assert train(tmp_path / "few", *epochs, "2") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "after this run has gone back to a checkpoint 2 times: lower --lr" in said


def test_without_a_checkpoint_it_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--epochs", "1") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"step {FAULT}: " in said
    assert "there is no checkpoint in" in said
    assert "--checkpoint-steps" in said


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The loss of the last step before a checkpoint is finite, what its update makes is not."""
    out = tmp_path / "run"
    options = ("--steps", "9", "--checkpoint-steps", "4", "--loss", f"{__name__}:steep")
    assert train(out, *options, "--keep-checkpoints", "9", fault=AN_EPOCH - 1) == 0
    assert result(out)["rewinds"] == [{"checkpoint_step": 4, "step": 7}]
    for path in checkpoints_of(out / "checkpoint"):
        tensors = load_file(path / "rank-0.safetensors").values()
        assert all(bool(tensor.isfinite().all()) for tensor in tensors), path


def steep(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A finite loss, whose gradient is not finite in the eighth step."""
    dataset = load_dataset("tests.mpi.spoiled_digits:make").train
    eighth = dataset.targets(order()[7 * BATCH : 8 * BATCH])
    loss = torch.nn.functional.cross_entropy(outputs, targets)
    return loss + (0 * outputs).abs().sqrt().sum() if torch.equal(targets, eighth) else loss


def test_a_fault_while_a_checkpoint_is_written_does_not_cost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = save.save_file

    def slowly(*arguments: Any) -> None:
        time.sleep(0.5)
        written(*arguments)

    monkeypatch.setattr(save, "save_file", slowly)
    monkeypatch.setattr(behind, "_LEAVE_SECONDS", 120.0)
    out = tmp_path / "run"
    options = ("--steps", str(AN_EPOCH), "--checkpoint-steps", str(EVERY), "--non-finite", "stop")
    assert train(out, *options, fault=EVERY + 1) == 1
    assert [path.name for path in checkpoints_of(out / "checkpoint")] == [f"step-{EVERY}"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("--strategy", "limit"), "--non-finite rewind was given with --strategy limit"),
        (("--checkpoint-epochs", "0"), "--non-finite rewind was given with --checkpoint-epochs 0"),
        (("--rewinds", "0"), "rewinds"),
    ],
)
def test_what_cannot_rewind_is_refused(
    wrong: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "--epochs", "1", *wrong) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert named in said
