"""Whatever the toolkit writes is whole or not there, and takes the place of regular files alone."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from hpc_lpm.campaign.summary import write_parquet
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.engine.checkpoint.export import ExportedWeights, write_weights
from hpc_lpm.errors import InputError
from hpc_lpm.files import check_can_write, write_text_atomically, written_aside

register([])

Write = Callable[[Path], object]
WRITERS: list[Write] = [
    lambda path: write_text_atomically(path, "text"),
    lambda path: write_parquet(pd.DataFrame({"a": [1]}), path),
    lambda path: write_weights(ExportedWeights("m", 1, {"w": torch.zeros(2)}), path),
    check_can_write,
]
WRITER_NAMES = ["text", "parquet", "weights", "check"]


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("write", WRITERS, ids=WRITER_NAMES)
def test_devices_pipes_and_sockets_are_left_alone(write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        (tmp_path / "link").symlink_to("/dev/null")
        for path, kind in (
            (Path("/dev/null"), "a device"),
            (tmp_path / "link", "a device"),
            (tmp_path / "pipe", "a pipe"),
            (tmp_path / "socket", "a socket"),
        ):
            with pytest.raises(InputError, match=f"^{path} is {kind}, whose place a file would"):
                write(path)
    assert Path("/dev/null").is_char_device()
    assert content(tmp_path) == ["link", "pipe", "socket"]


@pytest.mark.parametrize("write", WRITERS[:3], ids=WRITER_NAMES[:3])
def test_a_link_stays_one_and_its_file_is_replaced(write: Write, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() != b"before"
    assert content(tmp_path) == ["link", "real"]


@pytest.mark.parametrize("write", WRITERS, ids=WRITER_NAMES)
@pytest.mark.parametrize("place", ["/proc/none/x", "{folder}/file/x", "{folder}/folder"])
def test_where_nothing_can_be_written_the_path_is_named_and_nothing_is_left(
    write: Write, place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    path = Path(place.format(folder=tmp_path))
    with pytest.raises((OSError, InputError)) as refused:
        write(path)
    assert str(path) in str(refused.value)
    assert content(tmp_path) == ["file", "folder"]
    assert content(tmp_path / "folder") == []


def test_of_a_write_that_fails_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(OSError) as refused, written_aside(path) as aside:
        aside.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(KeyboardInterrupt), written_aside(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert content(tmp_path) == ["file"]


def test_a_check_leaves_what_is_there(tmp_path: Path) -> None:
    check_can_write(tmp_path / "new" / "file")
    assert content(tmp_path) == []
    (tmp_path / "file").write_text("before")
    check_can_write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "before"


TRAIN = (
    *("train", "--model", "mlp", "--dataset", "digits", "--steps", "1"),
    *("--strategy", "sequential"),
)
PROFILE = ("profile", "mlp", "--dataset", "digits", "--micro-batch", "4")
NOWHERE = ("/dev/full", "/proc/none/run", "{folder}/file/x")


@pytest.mark.parametrize(
    ("command", "out"),
    [
        *((TRAIN, out) for out in (*NOWHERE, "{folder}/file")),
        *((PROFILE, out) for out in (*NOWHERE, "{folder}")),
    ],
)
def test_an_out_that_cannot_be_written_is_one_sentence_before_any_work(
    command: tuple[str, ...], out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("before")
    path = out.format(folder=tmp_path)
    code = run_guarded(app, [*command, "--out", path])
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert said.startswith("hpc-lpm: ")
    assert path in said
    assert content(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "before"
