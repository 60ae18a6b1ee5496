"""Who can read what the toolkit leaves: the umask says so, and nobody else until it is finished."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from hpc_lpm.campaign.shorter_runs import copy_progress
from hpc_lpm.campaign.summary import write_parquet
from hpc_lpm.cli.unexpected import explain
from hpc_lpm.cluster.roll_call import roll_call
from hpc_lpm.engine.checkpoint.export import ExportedWeights, write_weights
from hpc_lpm.engine.checkpoint.store import begin_aside, publish
from hpc_lpm.files import check_can_write, write_text_atomically, written_aside


@pytest.fixture(params=[0o002, 0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


WRITERS: list[Callable[[Path], object]] = [
    lambda path: write_text_atomically(path, "text"),
    lambda path: write_parquet(pd.DataFrame({"a": [1]}), path),
    lambda path: write_weights(ExportedWeights("m", 1, {"w": torch.zeros(2)}), path),
]


@pytest.mark.parametrize("write", WRITERS, ids=["text", "parquet", "weights"])
def test_files_follow_the_umask_also_where_they_replace_others(
    write: Callable[[Path], object], umask: int, tmp_path: Path
) -> None:
    path = tmp_path / "new folder" / "file"
    for _ in range(2):
        write(path)
        assert mode(path) == 0o666 & ~umask
        assert mode(path.parent) == 0o777 & ~umask
        path.chmod(0o600)


def test_what_is_not_finished_is_private_and_has_a_name_that_nobody_can_guess(
    umask: int, tmp_path: Path
) -> None:
    names = set()
    for _ in range(3):
        with written_aside(tmp_path / "file") as aside:
            assert mode(aside) == 0o600
            names.add(aside.name)
    assert len(names) == 3
    with roll_call(tmp_path / "log", 2, 1.0) as call:
        (folder,) = tmp_path.glob(".ranks-*")
        assert call.environment({})
        assert mode(folder) == 0o700
    check_can_write(tmp_path / "new" / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_somebody_has_put_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    # The name that a writer of this process would have, if one could guess it.
    guessed = tmp_path / f".file.{os.getpid()}.tmp"
    guessed.symlink_to(tmp_path / "of somebody else")
    write_text_atomically(tmp_path / "file", "text")
    check_can_write(tmp_path / "file")
    assert guessed.is_symlink()
    assert not (tmp_path / "of somebody else").exists()


def test_checkpoints_are_private_until_they_are_published(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoint" / "step-3"
    aside = begin_aside(path)
    assert mode(aside) == 0o700
    (aside / "rank-0.json").write_text("{}")
    publish(path)
    assert mode(path) == mode(path.parent) == 0o777 & ~umask
    assert mode(path / "rank-0.json") == 0o666 & ~umask
    copy_progress(tmp_path / "run", tmp_path / "longer")
    for folder in ("checkpoint", "checkpoint/step-3"):
        assert mode(tmp_path / "longer" / folder) == 0o777 & ~umask


def test_the_account_of_a_fault_is_private_where_others_write_too(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    explain(ValueError("x"), [])
    (here,) = tmp_path.glob("hpc-lpm-fault-*.txt")
    assert mode(here) == 0o666 & ~umask
    # Where nothing can be written, it goes to the folder of temporary files.
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    monkeypatch.chdir("/proc")
    sentence = explain(ValueError("x"), [])
    (there,) = shared.iterdir()
    assert str(there) in sentence
    assert mode(there) == 0o600
