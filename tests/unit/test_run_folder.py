"""A run removes and replaces nothing in its folder that no run has written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.checkpoint.own_files import foreign_entries, is_own, remove_checkpoints
from hpc_lpm.engine.checkpoint.store import begin_aside, publish
from hpc_lpm.engine.watchdog import watched

register([])

TRAIN = [
    *("train", "--model", "mlp,layers=3,width=8", "--dataset", "digits,size=8"),
    *("--steps", "2", "--batch-size", "256"),
]


def train(out: Path, *options: str) -> int:
    return run_guarded(app, [*TRAIN, "--out", str(out), *options])


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "run"
    assert train(out, "--keep-best") == 0
    return out


FOREIGN: dict[str, str] = {
    "checkpoint/precious/notes.txt": "mine",
    "checkpoint/notes.txt": "mine",
    "checkpoint/step-7/model.bin": "mine",
    "checkpoint/step-7/rank-0.safetensors": "of another program",
    "checkpoint/step-7/manifest.json": '{"name": "an application"}',
    "checkpoint/.step-7.partial/notes.txt": "mine",
    "checkpoint/.step-7.replaced/notes.txt": "mine",
    "checkpoint": "mine",
    "best/step-1000/weights.pt": "mine",
    "hang/notes.txt": "mine",
    "hang": "mine",
    "result.json": '{"accuracy": 0.9}',
    "metrics.jsonl": '{"step": 1, "reward": 2.0}\n',
    "trace.json": '{"events": []}',
    "result.json/notes.txt": "mine",
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["anew", "resumed"])
def test_what_no_run_has_written_is_left_and_named(
    name: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(FOREIGN[name])
    before = files_of(out)
    assert train(out, *options) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"--out {out} holds " in said
    assert "name another folder" in said
    assert files_of(out) == before


@pytest.mark.parametrize("name", [name for name in FOREIGN if name.count("/") > 1])
def test_foreign_files_beside_checkpoints_of_a_run_are_found(
    name: str, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(FOREIGN[name])
    before = files_of(out)
    assert train(out) == 2
    assert files_of(out) == before


def test_a_run_replaces_another_with_all_that_it_has_written(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / "notes.txt").write_text("mine")
    (out / "checkpoint" / ".step-9.partial").mkdir()
    (out / "hang").mkdir()
    (out / "hang" / "rank-0.json").write_text("{}")
    assert train(out, "--steps", "1", "--keep-best") == 0
    assert [path.name for path in (out / "checkpoint").iterdir()] == ["step-1"]
    assert (out / "notes.txt").read_text() == "mine"


def empty_result(out: Path) -> None:
    (out / "result.json").write_text("")


def removed_while_somebody_reads(out: Path) -> None:
    """As over NFS, which keeps such a file until nobody reads it any more."""
    for folder in (out / "checkpoint" / ".step-1.replaced", out / "hang"):
        folder.mkdir()
        (folder / ".nfs00000000000a1b2c00000001").write_text("")


def half_a_result(out: Path) -> None:
    result = out / "result.json"
    result.write_text(result.read_text()[:-200])


def half_a_line(out: Path) -> None:
    (out / "metrics.jsonl").write_text('{"step": 0, "epo')


def half_a_trace(out: Path) -> None:
    trace = out / "trace.json"
    trace.write_text(trace.read_text()[:200])


def damaged_manifest(out: Path) -> None:
    (manifest,) = out.glob("checkpoint/*/manifest.json")
    manifest.write_text(manifest.read_text()[:-9])


@pytest.mark.parametrize(
    "damage",
    [
        *(empty_result, half_a_result, half_a_line, half_a_trace, damaged_manifest),
        removed_while_somebody_reads,
    ],
)
def test_what_a_fault_has_left_of_a_run_is_a_runs(
    damage: Callable[[Path], None], run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    damage(out)
    assert train(out) == 0


def test_weights_to_start_from_are_not_removed_by_the_run_that_reads_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    before = files_of(out)
    (tmp_path / "link.safetensors").symlink_to(next(out.glob("checkpoint/*/*.safetensors")))
    capsys.readouterr()
    assert train(out, "--init-from", str(tmp_path / "link.safetensors")) == 2
    assert "is a checkpoint in --out" in capsys.readouterr().err
    assert files_of(out) == before


def test_checkpoints_alone_are_removed(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(run / "checkpoint", folder)
    (folder / "step-3").mkdir()
    (folder / "step-3" / "notes.txt").write_text("mine")
    assert foreign_entries(folder) == [folder / "step-3"]
    remove_checkpoints(folder)
    assert list(folder.iterdir()) == [folder / "step-3"]
    shutil.rmtree(folder / "step-3")
    remove_checkpoints(folder)
    assert not folder.exists()
    remove_checkpoints(folder)


def test_what_a_removal_leaves_that_is_cut_short_is_a_runs(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(run / "checkpoint", folder)

    def cut_short(path: Path) -> None:
        for file in path.iterdir():
            if file.suffix != ".safetensors":
                file.unlink()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "rmtree", cut_short)
    with pytest.raises(OSError, match="Input/output error"):
        remove_checkpoints(folder)
    monkeypatch.undo()
    assert list(folder.rglob("*.safetensors"))
    assert foreign_entries(folder) == []
    remove_checkpoints(folder)
    assert not folder.exists()


def test_a_checkpoint_that_somebody_reads_over_nfs_ends_no_removal(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(run / "checkpoint", folder)

    def keep_what_is_read(path: Path) -> None:
        first, *others = path.iterdir()
        first.rename(path / ".nfs00000000000a1b2c00000001")
        for file in others:
            file.unlink()
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(shutil, "rmtree", keep_what_is_read)
    remove_checkpoints(folder)
    monkeypatch.undo()
    (left,) = folder.iterdir()
    assert left.name.endswith(".replaced")
    assert foreign_entries(folder) == []


def test_a_new_checkpoint_leaves_folders_of_another_program(tmp_path: Path) -> None:
    for name in ("step-3", ".step-3.replaced", ".step-4.notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bin").write_text("mine")
    before = files_of(tmp_path)
    begin_aside(tmp_path / "step-5")
    publish(tmp_path / "step-5")
    assert files_of(tmp_path) == before
    with pytest.raises(FileExistsError, match="no checkpoint"):
        begin_aside(tmp_path / "step-3")


def test_a_link_to_a_folder_is_no_checkpoint(run: Path, tmp_path: Path) -> None:
    (checkpoint,) = (run / "checkpoint").iterdir()
    (tmp_path / checkpoint.name).symlink_to(checkpoint)
    assert is_own(checkpoint)
    assert not is_own(tmp_path / checkpoint.name)


def test_reports_of_ranks_alone_are_removed(tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.mkdir()
    for name in ("asked", "rank-0.json", "rank-1.json", "notes.txt"):
        (hang / name).write_text(json.dumps({}))
    with watched(tmp_path, 0, 2, 600.0, lambda: "nothing"):
        assert [path.name for path in hang.iterdir()] == ["notes.txt"]
