"""A checkpoint is written behind training: whole or not at all, whatever happens meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hpc_lpm.engine.checkpoint import behind, copies, save
from hpc_lpm.engine.checkpoint.behind import CheckpointWriter
from hpc_lpm.engine.checkpoint.copies import HostCopies
from hpc_lpm.engine.checkpoint.save import CheckpointedRun, RankPart
from hpc_lpm.engine.checkpoint.store import Checkpoint, TrainedData, newest_checkpoint
from hpc_lpm.engine.history import History
from hpc_lpm.engine.job import SingleProcess
from hpc_lpm.engine.one_process.job import PlayedJob
from hpc_lpm.engine.one_process.play import play_ranks
from hpc_lpm.engine.records import RankRecord, SavingSeconds
from hpc_lpm.engine.runners.runner import TrainedState
from hpc_lpm.errors import TrainingError
from hpc_lpm.free_memory import free_memory_bytes

RECORD = RankRecord(segments=[], peak_in_flight=0, lag_counts={}, bytes_sent=0, peak_memory_bytes=0)
SETTINGS = {"model": "own", "dataset": "own", "strategy": "sequential", "seed": 0}
RUN = CheckpointedRun(SETTINGS, TrainedData("other", (), 1, "classes", None), 9, 4, 1, [0, 1, 2])
RANKS = 2
PATIENCE_SECONDS = 60.0


def state_of(layer: int) -> TrainedState:
    linear = nn.Linear(3, 3)
    with torch.no_grad():
        linear.weight.fill_(float(layer))
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    return TrainedState({layer: linear}, optimizer, constant)


def begin(writer: CheckpointWriter, folder: Path, state: TrainedState, **more: Any) -> list[int]:
    """Begin to save after step 5, or another."""
    step, ranks = more.pop("step", 5), more.pop("ranks", 1)
    part = RankPart.of(state, RECORD)
    manifest = RUN.manifest(History(step=step), ranks)
    return writer.begin(
        folder / f"step-{step}", part, manifest, **{"keep": 1, "behind": True, **more}
    )


def play(part: Callable[[PlayedJob, CheckpointWriter], Any]) -> list[Any]:
    """Let two ranks of this process save."""
    return play_ranks(
        RANKS, PATIENCE_SECONDS, lambda job: part(job, CheckpointWriter(job, SavingSeconds()))
    )


@contextmanager
def held_writing(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no tensors be written before the event is set."""
    go_on = threading.Event()

    def late(tensors: Any, path: Path) -> None:
        assert go_on.wait(PATIENCE_SECONDS)
        save_file(tensors, path)

    monkeypatch.setattr(save, "save_file", late)
    yield go_on
    go_on.set()


def fails_on(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: Path) -> None:
        if path.name.startswith(f"rank-{rank}."):
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(save, "save_file", full)


def test_what_is_trained_meanwhile_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(1)
    writer = CheckpointWriter(SingleProcess(), seconds := SavingSeconds())
    with held_writing(monkeypatch) as go_on:
        assert begin(writer, tmp_path, state) == []
        with torch.no_grad():
            state.layers[1].weight.fill_(7.0)
        writer.look()
        assert newest_checkpoint(tmp_path) is None
        go_on.set()
        writer.finish()
    found = load_file(tmp_path / "step-5" / "rank-0.safetensors")
    assert found["layer.1.weight"].unique().tolist() == [1.0]
    # The memory of the copy is used for the next one.
    assert begin(writer, tmp_path, state, step=6) == []
    writer.finish()
    found = load_file(tmp_path / "step-6" / "rank-0.safetensors")
    assert found["layer.1.weight"].unique().tolist() == [7.0]
    assert [path.name for path in tmp_path.iterdir()] == ["step-6"]
    assert seconds.checkpoints == 2
    assert min(seconds.copy, seconds.wait, seconds.behind) > 0


def test_it_has_its_name_once_all_ranks_have_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody calls anything after `begin`: the threads do it by themselves."""
    waiting = threading.Event()

    def late(tensors: Any, path: Path) -> None:
        if path.name.startswith("rank-1."):
            assert waiting.wait(PATIENCE_SECONDS)
        save_file(tensors, path)

    monkeypatch.setattr(save, "save_file", late)

    def part(job: PlayedJob, writer: CheckpointWriter) -> None:
        begin(writer, tmp_path, state_of(job.rank), ranks=RANKS)
        if job.rank == 0:
            aside = tmp_path / ".step-5.partial"
            until((aside / "rank-0.json").exists)
            assert newest_checkpoint(tmp_path) is None
            waiting.set()
            until(lambda: newest_checkpoint(tmp_path) is not None)
        job.barrier()
        writer.finish()

    play(part)
    checkpoint = Checkpoint.newest(tmp_path)
    assert checkpoint is not None
    assert {(file.rank, file.start) for file in checkpoint.manifest.files} == {(0, 0), (1, 1)}
    checkpoint.check_bytes(0, 1)
    assert {path.suffix for path in checkpoint.path.iterdir()} == {".json", ".safetensors"}
    # Who can read one of them can read all.
    assert len({path.stat().st_mode for path in checkpoint.path.iterdir()}) == 1


def until(done: Callable[[], bool]) -> None:
    asked = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / 0.005)):
        if done():
            return
        asked.wait(0.005)
    raise AssertionError("it has not come")


def test_ranks_that_see_no_marks_of_others_tell_each_other_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind._Saving, "_files_of", lambda *_: None)

    def part(job: PlayedJob, writer: CheckpointWriter) -> None:
        begin(writer, tmp_path, state_of(job.rank), ranks=RANKS)
        writer.finish()
        writer.finish()  # there is nothing left to wait for

    play(part)
    checkpoint = Checkpoint.newest(tmp_path)
    assert checkpoint is not None
    checkpoint.check_bytes(0, 1)


@pytest.mark.parametrize("full", [0, 1])
def test_the_rank_that_cannot_write_says_so_at_its_next_step(
    full: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saved_before(job: PlayedJob, writer: CheckpointWriter) -> None:
        begin(writer, tmp_path, state_of(job.rank), ranks=RANKS)
        writer.finish()

    def part(job: PlayedJob, writer: CheckpointWriter) -> str:
        begin(writer, tmp_path, state_of(job.rank), ranks=RANKS, step=6)
        if job.rank != full:
            return ""
        until(lambda: not (tmp_path / ".step-6.partial").exists())
        with pytest.raises(TrainingError) as caught:
            writer.look()
        return str(caught.value)

    play(saved_before)
    fails_on(full, monkeypatch)
    said = play(part)[full]
    assert "No space left on device: make room" in said
    assert f"cannot be saved (rank {full}): " in said
    assert [path.name for path in tmp_path.iterdir()] == ["step-5"]


@pytest.mark.parametrize("full", [0, 1])
def test_without_a_next_step_all_ranks_say_so_in_the_end(
    full: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(job: PlayedJob, writer: CheckpointWriter) -> str:
        begin(writer, tmp_path, state_of(job.rank), ranks=RANKS)
        with pytest.raises(TrainingError) as caught:
            writer.finish()
        writer.leave()  # there is nothing to wait for
        return str(caught.value)

    fails_on(full, monkeypatch)
    first, second = play(part)
    assert first == second
    assert f"cannot be saved (rank {full}): " in first
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_away_meanwhile_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Any, path: Path) -> None:
        for each in path.parent.iterdir():
            each.unlink()
        path.parent.rmdir()
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(save, "save_file", gone)
    writer = CheckpointWriter(SingleProcess(), SavingSeconds())
    begin(writer, tmp_path, state_of(1))
    with pytest.raises(TrainingError, match="its files have vanished"):
        writer.finish()


def test_what_is_no_failure_to_write_is_raised_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(save, "save_file", broken)
    for call in (CheckpointWriter.look, CheckpointWriter.finish):
        writer = CheckpointWriter(SingleProcess(), SavingSeconds())
        begin(writer, tmp_path, state_of(1), behind=False)
        with pytest.raises(ZeroDivisionError):
            call(writer)


def test_a_disk_that_hangs_holds_nobody_longer_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CheckpointWriter(SingleProcess(limit_seconds=0.2), SavingSeconds())
    with held_writing(monkeypatch):
        begin(writer, tmp_path, state_of(1))
        with pytest.raises(TrainingError, match=r"not written after 0.2 s.*--receive-timeout"):
            writer.finish()


def test_a_rank_that_fails_lets_it_become_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "_LEAVE_SECONDS", PATIENCE_SECONDS)
    writer = CheckpointWriter(SingleProcess(), SavingSeconds())
    with held_writing(monkeypatch) as go_on:
        begin(writer, tmp_path, state_of(1))
        threading.Timer(0.2, go_on.set).start()
        writer.leave()
        assert newest_checkpoint(tmp_path) == tmp_path / "step-5"
        writer.finish()


def test_a_rank_without_memory_for_a_copy_writes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "free_memory_bytes", lambda: 10)

    def part(job: PlayedJob, writer: CheckpointWriter) -> list[int]:
        state = state_of(job.rank)
        lacking = begin(writer, tmp_path, state, ranks=RANKS)
        with torch.no_grad():
            state.layers[job.rank].weight.fill_(7.0)
        writer.finish()
        return lacking

    assert play(part) == [[0, 1], [0, 1]]
    for rank in range(RANKS):
        found = load_file(tmp_path / "step-5" / f"rank-{rank}.safetensors")
        assert found[f"layer.{rank}.weight"].unique().tolist() == [float(rank)]


def test_copies_have_the_bits_in_the_usual_layout_and_keep_their_memory() -> None:
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    tensors = {"image": image, "part": torch.arange(9)[2:5], "count": torch.tensor(3.0)}
    held = HostCopies()
    first = held.taken_of(tensors)
    assert first is not None
    for name, tensor in tensors.items():
        assert torch.equal(first[name], tensor)
        assert first[name].is_contiguous()
        assert first[name].untyped_storage().nbytes() == tensor.nbytes
    memory = first["image"].data_ptr()
    again = held.taken_of({"image": image + 1, "part": torch.arange(7)})
    assert again is not None
    assert again["image"].data_ptr() == memory
    assert set(again) == {"image", "part"}
    assert again["part"].tolist() == list(range(7))


GROUPS = {
    "version 2": (
        "0::/a/b\n",
        {
            "memory.max": "max",
            "a/memory.max": "1000",
            "a/memory.current": "900",
            "a/memory.stat": "anon 5\nactive_file 100\ninactive_file 250\n",
            "a/b/memory.max": "max",
        },
        450,
    ),
    "version 1": (
        "4:memory:/job\n3:cpu:/job\n",
        {
            "memory/job/memory.limit_in_bytes": "1000",
            "memory/job/memory.usage_in_bytes": "700",
            "memory/job/memory.stat": "active_file 1\ninactive_file 1\n"
            "total_active_file 30\ntotal_inactive_file 20\n",
        },
        350,
    ),
}


@pytest.mark.parametrize("version", GROUPS)
def test_free_memory_is_what_the_tightest_group_leaves(version: str, tmp_path: Path) -> None:
    groups, files, free = GROUPS[version]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert free_memory_bytes(tmp_path / "proc", tmp_path / "groups") == free
    assert free_memory_bytes(tmp_path / "proc", tmp_path / "none") > 10_000
