"""What is put into a checkpoint comes out of it: layers, optimizer, learning rate."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hpc_lpm.engine.checkpoint.behind import CheckpointWriter
from hpc_lpm.engine.checkpoint.load import CheckpointReader
from hpc_lpm.engine.checkpoint.own_files import remove_checkpoints_after
from hpc_lpm.engine.checkpoint.save import CheckpointedRun, RankPart
from hpc_lpm.engine.checkpoint.store import (
    Checkpoint,
    TrainedData,
    checkpoint_name,
    newest_checkpoint,
    opened_alike,
)
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.one_process.play import play_ranks
from hpc_lpm.engine.optimizer import build_optimizer, build_scheduler
from hpc_lpm.engine.records import RankRecord, SavingSeconds
from hpc_lpm.engine.runners.runner import TrainedState
from hpc_lpm.errors import InputError, TrainingError
from hpc_lpm.options import LearningRateSettings, OptimizerSettings

STEPS = 9
RATE = LearningRateSettings(schedule="cosine", warmup_steps=2)
RECORD = RankRecord(
    segments=[], peak_in_flight=0, lag_counts={0: 3}, bytes_sent=0, peak_memory_bytes=0
)
DATA = TrainedData("image", (1, 8, 8), 2, "classes", None)
SETTINGS = {"model": "own", "dataset": "own", "strategy": "sequential", "seed": 0}
RUN = CheckpointedRun(SETTINGS, DATA, updates=STEPS, steps_an_epoch=4, replicas=1, cuts=[0, 3])


def fresh(name: str, memory_format: torch.memory_format = torch.contiguous_format) -> TrainedState:
    torch.manual_seed(0)
    layers: dict[int, nn.Module] = {
        0: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).to(memory_format=memory_format),
        1: nn.Tanh(),
        2: nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 2)),
    }
    parameters = [p for layer in layers.values() for p in layer.parameters()]
    optimizer = build_optimizer(parameters, OptimizerSettings(name=name, lr=0.01))
    return TrainedState(layers, optimizer, build_scheduler(optimizer, RATE, STEPS))


def train(state: TrainedState, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        value: Tensor = torch.rand(5, 1, 8, 8, generator=generator)
        for layer in state.layers.values():
            value = layer(value)
        value.square().mean().backward()
        state.optimizer.step()
        state.scheduler.step()
        state.optimizer.zero_grad()


def save(state: TrainedState, folder: Path, step: int) -> Path:
    history = History(step=step)
    path = folder / checkpoint_name(history, evaluation_is_due=False)
    writer = CheckpointWriter(SingleProcess(), SavingSeconds())
    writer.begin(path, RankPart.of(state, RECORD), RUN.manifest(history, 1), 1, behind=False)
    writer.finish()
    return path


def weights(state: TrainedState) -> list[Tensor]:
    return [t.clone() for layer in state.layers.values() for t in layer.state_dict().values()]


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "adam", "adamw", "NAdam", "RAdam", "ASGD", "Adagrad", "Rprop"]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_restored_state_takes_the_same_steps(
    name: str, memory_format: torch.memory_format, tmp_path: Path
) -> None:
    whole = fresh(name, memory_format)
    train(whole, range(5))
    save(whole, tmp_path, 5)
    train(whole, range(5, STEPS))
    resumed = fresh(name, memory_format)
    checkpoint = Checkpoint.newest(tmp_path)
    assert checkpoint is not None
    CheckpointReader(checkpoint).restore(resumed)
    conv = resumed.layers[0].get_submodule("0").weight
    assert isinstance(conv, Tensor)
    assert conv.is_contiguous(memory_format=memory_format)
    train(resumed, range(5, STEPS))
    for expected, found in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(expected, found)
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


def test_saving_leaves_what_is_saved_as_it_was(tmp_path: Path) -> None:
    state = fresh("adamw")
    train(state, range(3))
    before, generator = copy.deepcopy(weights(state)), torch.get_rng_state()
    save(state, tmp_path, 3)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))
    assert torch.equal(torch.get_rng_state(), generator)


def test_another_model_is_refused_by_the_tensor_that_does_not_fit(tmp_path: Path) -> None:
    save(fresh("sgd"), tmp_path, 1)
    checkpoint = Checkpoint.newest(tmp_path)
    assert checkpoint is not None
    other = fresh("sgd")
    other.layers[2] = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 1))
    with pytest.raises(InputError, match=r"shape \[2, 144\] for layer.2.1.weight, the model has"):
        CheckpointReader(checkpoint).restore(other)


def test_a_failure_to_write_is_one_sentence_and_harms_no_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = fresh("momentum")
    older = save(state, tmp_path, 2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hpc_lpm.engine.checkpoint.save.save_file", full)
    with pytest.raises(TrainingError, match="No space left on device: make room") as caught:
        save(state, tmp_path, 3)
    assert str(caught.value).endswith(".")
    monkeypatch.undo()
    assert newest_checkpoint(tmp_path) == older
    newer = save(state, tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == [newer.name]


def test_an_older_checkpoint_in_which_somebody_reads_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = fresh("sgd")
    save(state, tmp_path, 2)

    def in_use(*_: object, **__: object) -> None:
        raise OSError(39, "Directory not empty")  # as over NFS

    monkeypatch.setattr("os.rmdir", in_use)
    newer = save(state, tmp_path, 3)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.glob("step-*")] == [newer.name]
    assert newest_checkpoint(tmp_path) == newer
    newest = save(state, tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == [newest.name]


def test_of_one_step_the_checkpoint_after_the_evaluation_is_the_newer(tmp_path: Path) -> None:
    for step, due in [(9, False), (12, True), (12, False)]:
        (tmp_path / checkpoint_name(History(step=step), evaluation_is_due=due)).mkdir()
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert found.name == checkpoint_name(History(step=step), evaluation_is_due=due)
    (tmp_path / ".step-13.partial").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "step-12"
    assert newest_checkpoint(tmp_path / "none") is None


def test_a_file_that_the_disk_does_not_give_makes_its_checkpoint_a_damaged_one(
    tmp_path: Path,
) -> None:
    path = save(fresh("sgd"), tmp_path, 1)
    file = path / "rank-0.safetensors"
    file.unlink()
    file.symlink_to(file.name)  # to look at it fails as on a broken disk, for root too
    with pytest.raises(InputError, match=r"damaged at rank-0\.safetensors: it cannot be looked at"):
        Checkpoint.opened(path)


def test_of_one_step_what_was_saved_behind_the_evaluation_is_later(tmp_path: Path) -> None:
    pending = checkpoint_name(History(step=5), evaluation_is_due=True)
    for name in ("step-4", pending, "step-5", "step-6"):
        (tmp_path / name).mkdir()
    remove_checkpoints_after(tmp_path, 5)
    assert {path.name for path in tmp_path.iterdir()} == {"step-4", pending, "step-5"}
    remove_checkpoints_after(tmp_path, 5, pending=True)
    assert {path.name for path in tmp_path.iterdir()} == {"step-4", pending}


def test_all_ranks_load_the_checkpoint_that_rank_0_finds(tmp_path: Path) -> None:
    first, second, later = (tmp_path / name for name in ("first", "second", "later"))
    shutil.copytree(save(fresh("sgd"), first, 1), second / "step-1")
    shutil.copytree(save(fresh("sgd"), later, 2), second / "step-2")

    def part(job: PlayedJob) -> str:
        return opened_alike(second if job.rank else first, job).path.name

    assert play_ranks(2, 60.0, part) == ["step-1", "step-1"]
    shutil.rmtree(second / "step-1")
    with pytest.raises(InputError, match=r"step-1.manifest\.json does not exist.*\(rank 1\)\.$"):
        play_ranks(2, 60.0, part)
